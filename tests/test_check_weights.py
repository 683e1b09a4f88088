"""Check of weights: each kind is opened by its system, with its facts and an answer; what differs is named."""

import json

import open_clip
import pytest
import timm
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import load_file, save_file
from tiny.blip2 import CONFIG, TEXTS
from tiny.clip import small, write_clip
from tiny.llava import write_llava
from tiny.vitp import internvl_folder, tiny_model

from blip2_gated.backbone import build_blip2, fit_config, make_tokenizer
from clip.checkpoint import save_clip
from common.cli.errors import CommandLineError
from common.models.backbone import write_timm_folder
from model import VisionStyleEncoder
from style_encoder import save_encoder
from tools import check_weights, published_weights
from vitp.demo import train_tokenizer


def style_encoder(folder):
    torch.manual_seed(0)
    save_encoder(folder / "best.pth", VisionStyleEncoder("test_vit", image_size=32, style_width=16, frozen_maps=1))
    return folder / "best.pth"


def clip_file(folder):
    save_clip(folder / "best_model.pth", small())
    return folder / "best_model.pth"


def blip2(folder):
    tokenizer = make_tokenizer(TEXTS, 600)
    torch.manual_seed(0)
    build_blip2(fit_config(CONFIG, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def internvl(folder):
    internvl_folder(folder)
    train_tokenizer(["What colour is the circle? red, user system assistant"] * 5, 300).save_pretrained(folder)
    return folder


def timm_folder(folder):
    torch.manual_seed(0)
    statistics = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    write_timm_folder(folder, timm.create_model("test_vit", num_classes=0), 160, *statistics)
    return folder


def internvit(folder):
    tiny_model().model.vision_tower.save_pretrained(folder)
    return folder


KINDS = {
    "style encoder": (style_encoder, 32),
    "clip": (clip_file, 32),
    "timm": (timm_folder, 160),
    "InternViT": (internvit, 28),
    "blip-2": (blip2, 32),
    "internvl": (internvl, 28),
    "llava": (write_llava, 32),
}


@pytest.mark.parametrize("system", KINDS)
def test_every_system(tmp_path, capsys, system):
    write, image_size = KINDS[system]
    weights = str(write(tmp_path))
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    capsys.readouterr()
    report = check_weights.main([weights, "--json", "--device", "cpu"])
    assert json.loads(capsys.readouterr().out) == report
    assert report["system"] == system and report["image_size"] == image_size and report["differs"] == []
    assert report["parameters"] > 1000 and report["activation"] and len(report["mean"]) == 3
    assert report["answer"] and f"{'local-dir:' if system == 'timm' else ''}{weights}" in report["use"]
    if (tmp_path / "config.json").is_file():
        assert report["licence"] == "cc-by-nc-4.0" and "model.safetensors" in report["files"]
        assert system in ("timm", "InternViT") or "tokens" in report["tokenizer"]


def test_a_clip_is_compared_with_transformers(tmp_path, capsys):
    """The cosines are those of transformers' CLIPModel and CLIPProcessor; with another activation they are not."""
    folder = write_clip(tmp_path)
    report = check_weights.main([str(folder)])
    assert report["system"] == "clip" and "of 'red circle'" in capsys.readouterr().out
    pictures = check_weights.drawn_pictures()
    with torch.no_grad():
        theirs = published_weights.clip_cosines(str(folder), list(pictures.values()), check_weights.TEXTS)
    found = [values for name, values in report["answer"].items()]
    torch.testing.assert_close(torch.tensor(found), theirs, atol=1e-4, rtol=0)
    (message,) = check_weights.difference("transformers", theirs + 0.01, theirs)
    assert "0.0100" in message


def test_a_folder_of_open_clip_is_compared_with_open_clip(tmp_path):
    towers = {
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    config = {"embed_dim": 16, "quick_gelu": True, **towers}
    torch.manual_seed(0)
    network = open_clip.CLIP(**config)
    squash = {"interpolation": "bilinear", "resize_mode": "squash", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    set_model_preprocess_cfg(network, {"size": (32, 32), "mode": "RGB", "fill_color": 0, **squash})
    save_file(network.state_dict(), tmp_path / "open_clip_model.safetensors")
    save_config_for_hf(network, tmp_path / "open_clip_config.json", config)
    report = check_weights.main([str(tmp_path)])
    assert (report["activation"], report["interpolation"], report["mean"]) == ("QuickGELU", "bilinear", [0.5] * 3)
    assert published_weights.clip_cosines(str(tmp_path), [check_weights.red_circle()], ["a"]) is not None


def test_what_differs_from_the_published_facts_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(published_weights.REFERENCES, tmp_path.name, {"parameters": 5, "image_size": 32})
    with pytest.raises(ValueError, match=r"parameters \d+, published 5$"):
        check_weights.main([str(write_clip(tmp_path))])
    assert "differs" in capsys.readouterr().out


def test_incomplete_weights_are_refused(tmp_path):
    folder = write_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="visual_projection|visual.proj"):
        check_weights.main([str(folder)])


def test_mistakes(tmp_path):
    with pytest.raises(CommandLineError, match="weights"):
        check_weights.main([])
    with pytest.raises(ValueError, match="nobody/nothing: no such file or folder, and not available on the Hub"):
        check_weights.main(["nobody/nothing"])
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        check_weights.main([str(tmp_path / "nothing.pth")])
