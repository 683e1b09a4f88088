"""Where a timm backbone comes from: a name, `timm/NAME`, `hf-hub:OWNER/NAME` or `local-dir:FOLDER`."""

import json
import shutil

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import TINY_RUN, draw_styles, flags, run_folders
from tiny.vitp import TEXT
from transformers import Qwen2Config

import evaluate_style
import train
from clip.checkpoint import load_clip, save_clip
from clip.model import CLIPModel
from common.models.backbone import VisionTower, create_backbone, resolve_backbone, write_timm_folder
from model import VisionStyleEncoder
from retrieval.encoders import open_encoder
from style_encoder import build_untrained, load_encoder, save_encoder
from vitp.checkpoint import fit_to_images, load_model
from vitp.compose import build_model

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


@pytest.fixture
def source(tmp_path):
    """A folder as it lies on the Hub: a ViT for images of 48 pixels with statistics of its own."""
    torch.manual_seed(3)
    write_timm_folder(
        tmp_path / "owner" / "vit", timm.create_model("test_vit", num_classes=7, img_size=48), 48, MEAN, STD
    )
    return tmp_path / "owner" / "vit"


@pytest.fixture
def hub(source, monkeypatch):
    """The Hub, where owner/vit is that folder and nothing else can be reached."""

    def fetch(repo_id, filename, revision=None, cache_dir=None):
        if repo_id != "owner/vit":
            raise FileNotFoundError(f"cannot find {repo_id} on the Hub\nand more lines")
        return str(source / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", fetch)


def images(size, count=2):
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["hf-hub:owner/vit", "hf_hub:owner/vit@main", "local-dir:{source}"])
def test_a_source_gives_weights_size_and_statistics(source, hub, name):
    tower = VisionTower(name.format(source=source), pretrained=True).eval()
    theirs = timm.create_model(f"local-dir:{source}", pretrained=True, num_classes=0).eval()
    assert tower.image_size == 48 and tower.interpolation == "bicubic"
    assert tower.mean.flatten().tolist() == pytest.approx(MEAN) and tower.std.flatten().tolist() == pytest.approx(STD)
    with torch.no_grad():
        normalised = (images(48) / 255 - tower.mean) / tower.std
        torch.testing.assert_close(tower(images(48)).pooled, theirs(normalised))
    without = VisionTower(name.format(source=source))
    assert not torch.equal(without.backbone.cls_token, theirs.cls_token) and without.image_size == 48


@pytest.mark.parametrize("name", ["hf-hub:owner/vit", "local-dir:{source}"])
def test_a_checkpoint_needs_no_source(source, hub, tmp_path, name):
    """Neither its model nor the normalisation of its input; what it was before training does, and says so."""
    encoder = VisionStyleEncoder(name.format(source=source), pretrained=True, image_size=64, style_width=16).eval()
    settings = {"seed": 0, "pretrained": True, "model_name": name.format(source=source)}
    save_encoder(tmp_path / "a.pth", encoder, settings=settings)
    untrained, _ = build_untrained(load_encoder(tmp_path / "a.pth", torch.device("cpu"))[1], torch.device("cpu"))
    assert torch.equal(untrained.tower.backbone.cls_token, encoder.tower.backbone.cls_token)
    shutil.rmtree(source)
    again, content = load_encoder(tmp_path / "a.pth", torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(again(images(64)).style, encoder(images(64)).style)
    assert again.build == encoder.build == json.loads(json.dumps(encoder.build))
    assert again.build["model_name"] == "test_vit"
    untrained, problem = build_untrained(content, torch.device("cpu"))
    assert untrained is None and settings["model_name"] in problem


def test_a_source_is_trained_and_used_without_it(source, tmp_path, capsys):
    data = draw_styles(tmp_path / "data", targets=False)
    settings = {"model_name": f"local-dir:{source}", "pretrained": True, "epochs": 1}
    train.main(TINY_RUN + run_folders(data, tmp_path) + flags(**settings))
    source.rename(tmp_path / "elsewhere")
    weights = tmp_path / "checkpoints" / "best.pth"
    evaluate_style.main(flags(weights=weights, data_dir=data))
    assert "the untrained backbone could not be built: local-dir:" in capsys.readouterr().out


def test_timm_names_are_those_of_its_account(hub):
    plain = resolve_backbone("test_vit.r160_in1k")
    assert resolve_backbone("timm/test_vit.r160_in1k") == plain and plain[0] == "test_vit"
    with pytest.raises(ValueError, match="hf-hub:timm/nothing: cannot be loaded .*timm/nothing.*local-dir:FOLDER"):
        resolve_backbone("timm/nothing")


@pytest.mark.parametrize(
    "name, words",
    [
        ("hf-hub:owner/none", "hf-hub:owner/none: cannot be loaded .*on the Hub.*; connect to the internet once"),
        ("owner/vit", "Use 'hf-hub:owner/vit'"),
        ("hf-hub:", "no model id"),
        ("ftp:owner/vit", "Unknown model source 'ftp'"),
        ("test_vit.r160", "unknown timm model 'test_vit.r160'; did you mean test_vit.r160_in1k"),
        ("local-dir:{folder}/none", "none: cannot be loaded .*config.json.*; expected timm's config.json and weights"),
        ("local-dir:{folder}/other", "other: cannot be loaded .its config.json names no architecture of timm"),
        ("local-dir:{folder}/broken", "broken: cannot be loaded .*; expected timm's config.json"),
        ("local-dir:{folder}/new", "new: cannot be loaded .*vit_of_tomorrow"),
        ("local-dir:{folder}/empty", "empty: cannot be loaded .No suitable checkpoints"),
    ],
)
def test_what_cannot_be_had_is_one_line(hub, tmp_path, name, words):
    for folder, content in {
        "other": '{"model_type": "llama"}',
        "broken": "{",
        "new": '{"architecture": "vit_of_tomorrow", "pretrained_cfg": {}}',
        "empty": '{"architecture": "test_vit", "pretrained_cfg": {}}',
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        create_backbone(name.format(folder=tmp_path), pretrained=True)
    assert "\n" not in str(error.value)


def test_clip_takes_its_tower_from_there(source, hub, tmp_path):
    model = CLIPModel("small", image_tower="hf-hub:owner/vit", image_weights=True, image_size=48).eval()
    theirs = timm.create_model(f"local-dir:{source}", pretrained=True)
    assert torch.equal(model.network.visual.trunk.cls_token, theirs.cls_token) and model.config["mean"] == [*MEAN]
    save_clip(tmp_path / "clip.pth", model)
    write_timm_folder(tmp_path / "short", timm.create_model("test_vit", depth=3), 160, MEAN, STD)
    shutil.rmtree(source)
    with torch.no_grad():
        again = load_clip(tmp_path / "clip.pth")[0]
        assert torch.equal(again.encode_image(images(48)), model.encode_image(images(48)))
    with pytest.raises(ValueError, match="short: not weights of test_vit as open_clip builds it; .*is missing"):
        CLIPModel("small", image_tower=f"local-dir:{tmp_path / 'short'}", image_size=160)


def test_vitp_takes_its_vision_encoder_from_there(source, tmp_path):
    Qwen2Config(**TEXT).save_pretrained(tmp_path / "llm")
    model, statistics = build_model(f"local-dir:{source}", str(tmp_path / "llm"), 64)
    theirs = timm.create_model(f"local-dir:{source}", pretrained=True)
    assert torch.equal(model.model.vision_tower.timm_model.cls_token, theirs.cls_token)
    assert statistics == {"image_mean": [*MEAN], "image_std": [*STD]} and fit_to_images(model, 64) == 4
    model.eval().save_pretrained(tmp_path / "saved")
    shutil.rmtree(source)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, kept = (one.get_image_features(pixels).pooler_output for one in (load_model(tmp_path / "saved"), model))
        assert torch.equal(found, kept)
    with pytest.raises(ValueError, match="--vision_config local-dir:.*vit: cannot be loaded"):
        build_model(f"local-dir:{source}", str(tmp_path / "llm"))


@pytest.mark.parametrize(
    "name", ["hf-hub:owner/vit", "local-dir:{source}", "local-dir:{source}:{source}/model.safetensors"]
)
def test_retrieval_takes_its_encoder_from_there(source, hub, name):
    encoder = open_encoder(name.format(source=source))
    theirs = timm.create_model(f"local-dir:{source}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        expected = theirs((images(48) / 255 - encoder.mean) / encoder.std)
        torch.testing.assert_close(encoder(images(48)), F.normalize(expected, dim=1))
        assert encoder(images(48), "mean", -2).shape == (2, 64)
    for other in ("hf-hub:owner/vit:random", "timm/test_vit:random"):
        assert not torch.equal(open_encoder(other).backbone.cls_token, theirs.cls_token)
