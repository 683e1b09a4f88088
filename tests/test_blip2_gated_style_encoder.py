"""BLIP2-gated with the style encoder as its expert: pooled feature, control token, checkpoints."""

import shutil

import pytest
import torch
from conftest import flags

from blip2_gated import train
from blip2_gated.checkpoint import load_gated, save_full
from blip2_gated.efficientnet import EfficientNetAdapter, read_style_build
from style_encoder import load_encoder

HALF = (0.5, 0.5, 0.5)


def arguments_of(weights):
    return {"name": "", "pretrained": weights, "width": 48, "mean": HALF, "std": HALF}


def test_the_adapter_gives_what_the_encoder_gives(trained):
    weights, _ = trained
    adapter = EfficientNetAdapter(**arguments_of(weights), style_encoder=read_style_build(weights)).train()
    encoder, _ = load_encoder(weights, torch.device("cpu"))
    image = torch.randint(0, 256, (3, 3, encoder.tower.image_size, encoder.tower.image_size), dtype=torch.uint8)
    pooled = adapter.pooled((image / 255 - 0.5) / 0.5)
    with torch.no_grad():
        output = encoder(image)
    feature, style = pooled[:, : -adapter.style_width], pooled[:, -adapter.style_width :]
    torch.testing.assert_close(feature, output.features.pooled, atol=1e-4, rtol=1e-4)
    assert torch.cosine_similarity(style, output.style).min() > 0.99  # the histogram's cells differ by rounding
    assert adapter(pooled).shape == (3, 48) and adapter.style_token(pooled).shape == (3, 1, 48)
    assert not any(parameter.requires_grad for parameter in adapter.backbone.parameters())


def test_a_run_with_the_style_encoder_and_its_files(blip2_arguments, tmp_path, trained, monkeypatch):
    weights = shutil.copy(trained[0], tmp_path / "style.pth")
    run = [*blip2_arguments, *flags("model.efficientnet.", weights=weights, image_size=0)]
    train.main([*run, *flags("training.", epochs=1, eval_samples=0)])
    best, elsewhere = tmp_path / "checkpoints" / "best.pt", weights.rename(tmp_path / "moved.pth")
    with pytest.raises(FileNotFoundError, match=r"style\.pth.*--efficientnet"):
        load_gated(best)
    model, content = load_gated(best, efficientnet=str(elsewhere))
    assert content["build"]["model"]["efficientnet"]["name"] == load_encoder(elsewhere, "cpu")[0].tower.model_name
    assert not [name for name in torch.load(best)["model_state_dict"] if name.startswith("efficientnet.backbone.")]
    pixels = torch.randint(0, 256, (2, 3, model.image_size, model.image_size), dtype=torch.uint8)
    question = model.prompts.collate([model.prompts.encode("In which style is this drawn?", "Noto")] * 2)
    words = question["question_ids"], question["question_mask"]
    control = model.control_tokens(model.features(pixels).pooled, *words)
    assert control.shape[1] == model.mapper.tokens.shape[0] + 1  # the style token
    save_full(tmp_path / "full.pt", model, content["build"])
    monkeypatch.setattr("model.VisionStyleEncoder.from_pretrained", None)  # its file is not needed any more
    whole, _ = load_gated(tmp_path / "full.pt")
    torch.testing.assert_close(whole.control_tokens(whole.features(pixels).pooled, *words), control)


def test_another_size_than_the_style_encoders_is_refused(trained):
    weights, _ = trained
    with pytest.raises(ValueError, match="image_size 999: this style encoder takes"):
        EfficientNetAdapter(**arguments_of(weights), image_size=999, style_encoder=read_style_build(weights))


def test_other_weights_are_no_style_encoder(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "a.pth")
    assert read_style_build(str(tmp_path / "a.pth")) is None and read_style_build(True) is None
