"""Check of weights: each kind is opened by its system, with its facts and an answer; what differs is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny.blip2 import CONFIG, TEXTS
from tiny.clip import small, write_clip
from tiny.llava import write_llava
from tiny.vitp import internvl_folder

from blip2_gated.backbone import build_blip2, fit_config, make_tokenizer
from clip.checkpoint import save_clip
from common.cli.errors import CommandLineError
from model import VisionStyleEncoder
from style_encoder import save_encoder
from tools import check_weights, published_weights
from vitp.demo import train_tokenizer


def style_encoder(folder):
    torch.manual_seed(0)
    save_encoder(folder / "best.pth", VisionStyleEncoder("test_vit", image_size=32, style_width=16))
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


def timm_name(folder):
    return "test_efficientnet:random"


KINDS = {
    "style encoder": (style_encoder, 32),
    "clip": (clip_file, 32),
    "timm": (timm_name, 160),
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
    assert report["answer"] and weights in report["use"]
    if (tmp_path / "config.json").is_file():
        assert report["licence"] == "cc-by-nc-4.0" and "model.safetensors" in report["files"]
        assert "tokens" in report["tokenizer"]


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
