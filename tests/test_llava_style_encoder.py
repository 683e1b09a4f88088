"""LLaVA with a style encoder: tokens of an image, training, the files of a run, and what is refused."""

import shutil

import pytest
import torch
from conftest import flags
from safetensors.torch import load_file
from tiny.llava import llava_flags, picture, write_conversations, write_timm_llava
from torchvision.transforms.functional import pil_to_tensor

from common.models.lora import PROJECTOR, STYLE, part_of
from llava import merge_lora, train
from llava.checkpoint import load_image_text_model
from llava.style_tower import STYLE_ENCODER
from model import VisionStyleEncoder
from style_encoder import load_encoder, save_encoder
from tools.push_to_hub import stage_model

TEXT = "USER: <image>\nWhat is this? ASSISTANT:"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Files of style encoders: one with the style vector alone, one with 3 tokens of an embed, too."""
    folder = tmp_path_factory.mktemp("encoders")
    embed = {"sequence_length": 3, "embed_width": 12, "predict_mask": True}
    for name, build in {"style": {"image_size": 32}, "embed": {"image_size": 48, **embed}}.items():
        torch.manual_seed(0)
        save_encoder(folder / f"{name}.pth", VisionStyleEncoder("test_vit", style_width=16, **build))
    return folder


@pytest.fixture
def arguments(llava_folders, encoders, tmp_path):
    """A run of 4 steps with a copy of an encoder, which may be deleted."""
    weights = shutil.copy(encoders / "style.pth", tmp_path / "best.pth")
    data = write_conversations(tmp_path / "data", 8)
    return llava_flags(llava_folders["llava"], data, tmp_path / "run") + flags(
        style_encoder=weights, max_steps=4, learning_rate=0.01, val_split=0, lora_dropout=0.1
    )


def load(folder, adapter="", encoder=""):
    return load_image_text_model(str(folder), str(adapter), device="cpu", style_encoder=str(encoder))


@torch.no_grad()
def logits(model, processor):
    inputs = processor(images=[picture(1), picture(2)], text=[TEXT, TEXT], return_tensors="pt")
    return model.eval()(**inputs).logits


def saved(folder):
    return load_file(next(folder.glob("*model.safetensors")))


@pytest.mark.parametrize("tower, encoder, count", [("clip", "style", 1), ("timm", "embed", 4)])
def test_tokens_of_an_image(llava_folders, tmp_path, encoders, tower, encoder, count):
    """The patches as without; behind them the style vector, and the embed of an encoder that gives one."""
    folder = llava_folders["llava"] if tower == "clip" else write_timm_llava(tmp_path)
    plain, styled = load(folder), load(folder, encoder=encoders / f"{encoder}.pth")
    inputs = styled.processor(images=[picture(1), picture(2)], text=[TEXT, TEXT], return_tensors="pt")
    length = plain.processor(images=[picture(1)], text=[TEXT], return_tensors="pt")["input_ids"].shape[1]
    assert inputs["input_ids"].shape[1] == length + count
    with torch.no_grad():
        before, after = (
            torch.stack(model.model.get_image_features(inputs["pixel_values"]).pooler_output)
            for model in (plain.model, styled.model)
        )
    torch.testing.assert_close(after[:, :-count], before)
    assert after.shape[1] == before.shape[1] + count and (after[0, -count] - after[1, -count]).abs().max() > 0.01
    assert torch.equal(logits(*styled), logits(*load(folder, encoder=encoders / f"{encoder}.pth")))


def test_the_encoder_sees_the_image_itself(llava_folders, encoders):
    """Of the tower's size to the bit; bf16 rounds it."""
    model, processor = load(llava_folders["llava"], encoder=encoders / "style.pth")
    image = picture(1, (32, 32))
    pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"]
    encoder = load_encoder(encoders / "style.pth", torch.device("cpu"))[0]
    with torch.no_grad():
        expected = encoder(pil_to_tensor(image)[None]).style
    assert torch.equal(model.model.vision_tower.encode(pixels).style, expected)
    rounded = model.bfloat16().model.vision_tower.encode(pixels.bfloat16()).style
    assert rounded.dtype == torch.float32 and torch.cosine_similarity(rounded, expected) > 0.999


def test_an_adapter_and_its_merging(arguments, llava_folders, tmp_path, monkeypatch):
    """The folders of adapter, checkpoint and merged model are all that is needed: logits are the trained model's."""
    kept, base = [], str(llava_folders["llava"])
    monkeypatch.setattr(train, "finish", lambda loaded, trainer, *_: kept.extend((trainer.model, loaded.processor)))
    train.main(arguments)
    (tmp_path / "best.pth").unlink()
    trained, expected = kept[0], logits(*kept)
    run, merged = tmp_path / "run", tmp_path / "merged"
    for adapter in (run, run / "checkpoint-4"):
        torch.testing.assert_close(logits(*load(base, adapter)), expected, atol=1e-5, rtol=1e-5)
    names = {name for name, value in trained.named_parameters() if value.requires_grad and "lora_" not in name}
    assert {part_of(name) for name in names} == {STYLE, PROJECTOR}
    merge_lora.main(flags(model_id=base, adapter=run, output_dir=merged, precision="fp32", device="cpu"))
    torch.testing.assert_close(logits(*load(merged)), expected, atol=1e-4, rtol=1e-4)
    (tmp_path / "hub").mkdir()
    assert STYLE_ENCODER not in stage_model(run, tmp_path / "hub", {base: "owner/base"})
    assert torch.equal(logits(*load(base, tmp_path / "hub")), logits(*load(base, run)))
    shutil.rmtree(run / STYLE_ENCODER)
    with pytest.raises((ValueError, OSError), match="style_encoder") as caught:
        load(base, run)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_first_stage_resumed_then_lora(arguments, encoders, tmp_path):
    """Projector and linear maps alone: a whole model, in whose folder its encoder is; resuming changes no bit of it."""
    first = [*arguments, *flags(freeze_language_model="true")]
    train.main([*first, "--output_dir", str(tmp_path / "whole")])
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "run" / "checkpoint-3")
    train.main([*first, "--resume_from_checkpoint", "true"])
    whole, resumed = saved(tmp_path / "whole"), saved(tmp_path / "run")
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())
    with pytest.raises(ValueError, match="style_encoder was"):
        train.main([*first, "--resume_from_checkpoint", "true", "--style_encoder", str(encoders / "embed.pth")])
    (tmp_path / "best.pth").unlink()
    with pytest.raises(ValueError, match="--style_encoder.*has a style encoder already"):
        load(tmp_path / "run", encoder=encoders / "style.pth")
    second = flags(model_id=tmp_path / "run", output_dir=tmp_path / "second", style_encoder="", max_steps=1)
    train.main([*arguments, *second])
    before, after = logits(*load(tmp_path / "run")), logits(*load(tmp_path / "run", tmp_path / "second"))
    assert (before - after).abs().max() > 1e-3


def test_what_is_no_style_encoder_or_has_no_place_for_one(llava_folders, encoders, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    good, llava = encoders / "style.pth", llava_folders["llava"]
    mistakes = (
        (llava, tmp_path / "other.pth", "other.pth"),
        (llava, tmp_path / "missing.pth", "missing.pth"),
        (llava_folders["internvl"], good, "--style_encoder.*internvl"),
        (llava_folders["llava_next"], good, "--style_encoder.*llava_next"),
    )
    for folder, encoder, words in mistakes:
        with pytest.raises((ValueError, OSError), match=words) as caught:
            load(folder, encoder=encoder)
        assert len(str(caught.value).splitlines()) == 1
