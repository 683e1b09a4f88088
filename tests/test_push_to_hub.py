"""Upload to the Hub: identical weights on return, only the files that others need, a card of the run's own results."""

import json
import re

import pytest
import torch
from tiny.hub import assert_names_no_place, front, same

from blip2_gated.checkpoint import build_arguments, load_gated, save_gated
from blip2_gated.dataset import VqaSample
from blip2_gated.model import Blip2OPTGated
from clip.checkpoint import load_clip, save_clip
from clip.model import CLIPModel
from common.cli.settings import read_settings
from common.models.model_folder import load_model
from retrieval.encoders import open_encoder
from style_encoder import load_encoder
from tools import push_to_hub

CPU = torch.device("cpu")


def test_a_style_encoder_comes_back_to_the_bit(trained, tmp_path, uploads):
    weights, data = trained
    result = push_to_hub.main([weights, "--output", str(tmp_path / "hub")])
    assert uploads == [] and result["files"] == [
        "README.md",
        "config.json",
        "metadata.safetensors",
        "model.safetensors",
    ]
    before, after = load_model(weights, "style encoder"), load_model(tmp_path / "hub", "style encoder")
    settings = before.pop("settings"), after.pop("settings")
    assert same(before, after) and before["validation"]["bank"].ndim == 2
    changed = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    assert changed == {"data_dir", "checkpoint_dir", "log_dir", "cache_dir"} and settings[1]["data_dir"] == data.name
    image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        wanted = load_encoder(weights, CPU)[0](image).style
        assert torch.equal(load_encoder(tmp_path / "hub", CPU)[0](image).style, wanted)
        assert torch.equal(open_encoder(tmp_path / "hub").native_vectors(image), wanted)


def test_what_is_uploaded(trained, tmp_path, uploads):
    weights, data = trained
    push_to_hub.main([weights, "--name", "me/style", "--license", "mit", "--private"])
    made, sent = uploads
    assert made == {"name": "me/style", "private": True, "exist_ok": True} and sent["name"] == "me/style"
    assert list(sent["files"]) == ["README.md", "config.json", "metadata.safetensors", "model.safetensors"]
    assert_names_no_place(sent["files"], data.parent, tmp_path)
    card = sent["files"]["README.md"].decode()
    assert front(card)["license"] == "mit" and 'from_pretrained("me/style"' in card and card.count("\n# style\n") == 1


def test_a_card_that_was_edited_goes_up_as_it_is(trained, tmp_path, uploads, capsys):
    push_to_hub.main([trained[0], "--output", str(tmp_path / "hub"), "--license", "mit"])
    card = tmp_path / "hub" / "README.md"
    card.write_text(card.read_text().replace("## Use", "Drawn by hand.\n\n## Use"))
    push_to_hub.main([str(tmp_path / "hub"), "--name", "me/style"])
    files = uploads[-1]["files"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    assert b"Drawn by hand." in files["README.md"] and "licence" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="has a card already"):
        push_to_hub.main([str(tmp_path / "hub"), "--name", "me/style", "--license", "mit"])
    card.unlink()
    push_to_hub.main([str(tmp_path / "hub"), "--name", "me/style"])
    assert "## Results" in uploads[-1]["files"]["README.md"].decode()


def test_the_card_holds_the_runs_figures_and_no_others(trained, tmp_path, capsys):
    weights, data = trained
    push_to_hub.main([weights, "--output", str(tmp_path / "hub")])
    card = (tmp_path / "hub" / "README.md").read_text()
    content = load_model(weights, "style encoder")
    head = front(card)
    assert "license" not in head and "no licence" in capsys.readouterr().out
    assert head["library_name"] == "vision-wrapper" and head["pipeline_tag"] == "image-feature-extraction"
    wanted = {name[4:]: value for name, value in content["metrics"].items() if name.startswith("val/")}
    assert set(head["metrics"]) == set(wanted) and "style_auc" in wanted
    shown = dict(re.findall(r"^\| `(\w+)` \| ([\d.e-]+) \|$", card, re.MULTILINE))
    assert shown == {name: f"{value:.4g}" for name, value in wanted.items()}
    assert f"after epoch {content['epoch']}, step {content['step']}" in card
    run = json.loads((data.parent / "checkpoints" / "run.json").read_text())
    assert f"commit {run['commit']}" in card and run["command"] not in card
    assert "| `model_name` | `test_vit` |" in card and "| `epochs` | `4` |" in card


def test_what_a_run_does_not_have_is_left_out(tmp_path):
    model = CLIPModel("small", image_size=32, projection_dim=16)
    save_clip(tmp_path / "bare.pth", model)
    push_to_hub.main([str(tmp_path / "bare.pth"), "--output", str(tmp_path / "hub")])
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "metrics" not in front(card) and "base_model" not in front(card)
    for word in ("Results", "Training", "The run", "None", "nan"):
        assert word not in card
    again, facts = load_clip(tmp_path / "hub")
    assert same(dict(model.state_dict()), dict(again.state_dict())) and same(facts["build"]["config"], model.config)


def test_clips_that_transformers_does_not_have(tmp_path):
    model = CLIPModel("small", image_tower="test_efficientnet", image_size=64, sigmoid=True).eval()
    save_clip(tmp_path / "timm.pth", model)
    push_to_hub.main([str(tmp_path / "timm.pth"), "--output", str(tmp_path / "hub")])
    again, _ = load_clip(tmp_path / "hub")
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again.encode_image(images), model.encode_image(images))
        assert torch.equal(again.encode_text(["a sea"]), model.encode_text(["a sea"]))
    assert torch.equal(again.network.logit_bias, model.network.logit_bias)


def test_blip2_gated_names_what_it_was_made_from(tiny_blip2, tmp_path, uploads):
    from blip2_gated import config

    settings = read_settings(
        config,
        [
            "--model.blip2",
            str(tiny_blip2),
            "--model.efficientnet.name",
            "test_efficientnet",
            "--model.efficientnet.weights",
            "false",
            "--model.efficientnet.image_size",
            "32",
            "--model.prompt_mapper.hidden",
            "32",
        ],
    )
    recipe = build_arguments(settings, [VqaSample(0, "a.png", "a", style, style, "style") for style in ("oil", "ink")])
    torch.manual_seed(0)
    save_gated(
        tmp_path / "best.pt",
        Blip2OPTGated.from_build(recipe),
        recipe,
        settings=vars(settings),
        metrics={"val/main": 1.5},
    )
    with pytest.raises(ValueError, match=f"build: blip2: source is {tiny_blip2}, a path .* --hub_id {tiny_blip2}="):
        push_to_hub.main([str(tmp_path / "best.pt"), "--name", "me/gated"])
    assert uploads == []
    push_to_hub.main(
        [
            str(tmp_path / "best.pt"),
            "--name",
            "me/gated",
            "--hub_id",
            f"{tiny_blip2}=some/opt",
            "--output",
            str(tmp_path / "hub"),
        ]
    )
    files = uploads[-1]["files"]
    assert list(files) == ["README.md", "config.json", "model.safetensors"]
    assert_names_no_place(files, tiny_blip2, tmp_path)
    card = files["README.md"].decode()
    assert front(card)["base_model"] == "some/opt" and "| `main` | 1.5 |" in card
    assert json.loads(files["config.json"])["build"]["blip2"] == {"source": "some/opt"}
    assert len(files["model.safetensors"]) < 2**20 * 4  # the base's weights are not in it
    model, _ = load_gated(tmp_path / "best.pt")
    again, _ = load_gated(tmp_path / "hub", blip2=str(tiny_blip2))
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    pixels = torch.randint(256, (1, 3, model.image_size, model.image_size), dtype=torch.uint8)
    assert model.predict_answers(pixels, ["which?"]) == again.predict_answers(pixels, ["which?"])
