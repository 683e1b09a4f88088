"""The style encoder as its document describes it: config.py edited, scripts and snippet as printed
(docs/from-the-guides.md)."""

import contextlib
import importlib.util
import io
import os
import re
import shlex

import pytest
import torch
from conftest import ROOT, draw_styles
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import inspect_image
import style_comparator
import train
from style_encoder import load_encoder, read_image

EDITS = """
DATA_DIR = "./data"
EPOCHS = 4
BATCH_SIZE = 8
LEARNING_RATE = 1e-3
IGNORE_TARGETS = ['pooled', 'mask']
MODEL_NAME = 'test_vit'
PRETRAINED = False
IMAGE_SIZE = 32
DRAWN_STYLES = 0
DRAWN_SHARE = 0
DEVICE = 'cpu'
"""
COMMANDS = """
python style_comparator.py ./data/style_A/image01_img.png ./data/style_A/image02_img.png --weights WEIGHTS
python style_comparator.py ./data/style_A/image01_img.png ./data/style_B/image03_img.png --weights WEIGHTS
python inspect_image.py ./data/style_A/image01_img.png --weights WEIGHTS
"""
SNIPPET = """
from multimodal_utils import project_sequence_embed, create_attention_mask_from_embed

projected_vision_embed = project_sequence_embed(vision_embed, llm_projector)
vision_mask = create_attention_mask_from_embed(projected_vision_embed)
"""
TOP_LEVEL = """config.py train.py dataset.py model.py style_comparator.py inspect_image.py multimodal_utils.py
clip llava blip2_gated vitp data checkpoints logs requirements.txt README.md"""
PACKAGES = "torch torchvision timm transformers tensorboard tqdm pillow numpy"


def edited(path, edits):
    """A copy of config.py at `path` whose lines are replaced by the edits, as a module."""
    text = (ROOT / "config.py").read_text(encoding="utf-8")
    for line in edits.strip().splitlines():
        text, count = re.subn(rf"(?m)^{line.split()[0]} = .*", line, text)
        assert count == 1, line
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The document's folder after `python train.py` -> folder, what stderr showed."""
    folder = tmp_path_factory.mktemp("project")
    for style in draw_styles(folder / "drawn", styles=2).iterdir():
        target = folder / "data" / {"style_0": "style_A", "style_1": "style_B"}[style.name]
        target.mkdir(parents=True)
        for path in style.iterdir():
            path.rename(target / path.name.replace("item", "image0"))
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(shown):
        patch.chdir(folder)
        patch.setattr(train, "config", edited(folder / "config.py", EDITS))
        patch.setattr("common.cli.progress_bar.LINE_SECONDS", 0)
        train.main([])
    return folder, shown.getvalue()


def test_edits_of_config_take_effect(workplace):
    folder, shown = workplace
    weights = {path.name for path in (folder / "checkpoints").glob("*.pth")}
    assert weights == {"best.pth", "model_epoch_4.pth"}
    encoder, content = load_encoder(folder / "checkpoints" / "model_epoch_4.pth", torch.device("cpu"))
    settings = content["settings"]
    assert settings["ignore_targets"] == ["pooled", "mask"] and settings["learning_rate"] == 1e-3
    assert settings["batch_size"] == 8 and settings["model_name"] == "test_vit"
    output = encoder(read_image(folder / "data/style_A/image01_img.png", encoder)[None])
    assert output.embed.shape == (1, 4, 12) and output.pooled is None and output.mask is None


def test_the_progress_bar_shows_the_loss(workplace):
    assert re.search(r"epoch 4/4.*loss", workplace[1])


def test_tensorboard_reads_logs(workplace):
    (run,) = (workplace[0] / "logs").iterdir()
    events = EventAccumulator(str(run)).Reload()
    assert "train/loss" in events.Tags()["scalars"]


def test_the_tools_run_as_typed(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace[0])
    mains = {"style_comparator.py": style_comparator.main, "inspect_image.py": inspect_image.main}
    commands = COMMANDS.replace("WEIGHTS", "./checkpoints/model_epoch_4.pth").strip().splitlines()
    results = [mains[script](arguments) for _, script, *arguments in map(shlex.split, commands)]
    assert all(-1 <= result["similarity"] <= 1 for result in results[:2])
    shown = capsys.readouterr().out
    assert shown.count("style similarity: ") == 2 and shown.count("not trained") == 2


def test_the_inspector_names_the_three_outputs(trained, capsys):
    weights, data = trained
    inspect_image.main([str(data / "style_0" / "item0_img.png"), "--weights", weights, "--device", "cpu"])
    shown = capsys.readouterr().out
    assert re.search(r"output +shape +dtype +device", shown)
    for name in ("embed", "pooled embed", "attention mask"):
        assert re.search(rf"(?m)^{name} +\(1, .*\) +(float32|int64) +cpu", shown), name


def test_the_snippet_in_a_vision_language_model(trained):
    weights, data = trained
    encoder, _ = load_encoder(weights, torch.device("cpu"))
    vision_embed = encoder(read_image(data / "style_0" / "item0_img.png", encoder)[None]).embed
    scope = {"vision_embed": vision_embed, "llm_projector": nn.Linear(12, 32)}
    exec(SNIPPET, scope)
    assert scope["projected_vision_embed"].shape == (1, 5, 32)
    assert scope["vision_mask"].tolist() == [[1] * 5]


def test_the_design_card(workplace):
    assert [name for name in TOP_LEVEL.split() if not (ROOT / name).exists()] == []
    requirements = (ROOT / "requirements.txt").read_text()
    assert [name for name in PACKAGES.split() if not re.search(rf"(?m)^{name}>=", requirements)] == []
    assert sorted(os.listdir(workplace[0] / "data")) == ["style_A", "style_B"]  # nothing was drawn into it
