"""Parameters that no loss reads: they are not trained, so that several processes need not wait for their gradients."""

import json

import pytest
import torch
from conftest import TINY_RUN, draw_styles, flags, run_folders
from processes import torchrun
from tiny.style import weights

import train
from common.training.unused_parameters import freeze_unused
from model import StyleTrainingModel, VisionStyleEncoder

BACKBONES = ("test_vit", "test_vit3", "test_efficientnet", "test_convnext", "test_resnet")
ALL_TARGETS = {"sequence_length": 5, "embed_width": 8, "pooled_width": 6, "predict_mask": True}


def make_batch(samples=4, present=True):
    """Of two styles; embed (B, 5, 8), pooled (B, 6)."""
    here = torch.full((samples,), present)
    return {
        "image": torch.randint(256, (samples, 3, 64, 64), dtype=torch.uint8),
        "style_ids": torch.arange(samples) % 2,
        "embed": torch.randn(samples, 5, 8),
        "mask": torch.ones(samples, 5, dtype=torch.int64),
        "pooled": torch.randn(samples, 6),
        **{f"has_{target}": here for target in ("embed", "mask", "pooled")},
    }


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("targets", [{}, {"pooled_width": 6}, ALL_TARGETS])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_trained_gets_a_gradient_in_every_batch(name, targets, checkpointing):
    """Of samples without targets, and with dropped paths, too."""
    encoder = VisionStyleEncoder(
        name, image_size=64, drop_path_rate=0.5, gradient_checkpointing=checkpointing, **targets
    )
    parts = ("embed_mse", "embed_cosine", "pooled_mse", "pooled_cosine", "mask", "style")
    model = StyleTrainingModel(encoder, dict.fromkeys(parts, 1.0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch, random_state = make_batch(), torch.get_rng_state()
    freeze_unused(model, batch)
    assert model.training and torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(".backbone." in key for key in frozen) and len(frozen) < 20
    assert bool(frozen) == (not targets and name != "test_resnet")
    for present in (True, False):
        model.zero_grad()
        model(**make_batch(present=present))[0].backward()
        assert {key for key, parameter in model.named_parameters() if parameter.grad is None} == frozen


def test_what_is_not_trained_stays_as_it_was_built(tmp_path):
    data = draw_styles(tmp_path / "data", targets=False)
    train.main(TINY_RUN + run_folders(data, tmp_path) + flags(epochs=2, save_epochs=1, weight_decay=0.5))
    first, last = (weights(tmp_path / "checkpoints" / f"model_epoch_{epoch}.pth") for epoch in (1, 2))
    same = {name for name in first if torch.equal(first[name], last[name])}
    fitted = {name for name in first if "discriminants" in name}
    assert len(fitted) == 2
    assert same == {"tower.backbone.norm.weight", "tower.backbone.norm.bias"} | fitted


def two_processes(tmp_path, targets, **changes):
    """A run on drawn styles by torchrun; in half of the samples all targets are absent."""
    data = draw_styles(tmp_path / "data", targets=targets)
    for path in data.glob("*/item[0-3]_*.pt"):
        path.unlink()
    settings = {"epochs": 1, "batch_size": 12, "dropout": 0, **changes}
    torchrun("train.py", TINY_RUN + run_folders(data, tmp_path) + flags(**settings))
    return tmp_path / "checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("targets", [False, True])
def test_two_processes_train_every_kind_of_backbone(tmp_path, name, targets):
    folder = two_processes(tmp_path, targets, model_name=name, image_size=64, drop_path=0.3)
    assert json.loads((folder / "results.json").read_text())["history"][0]["train/loss"] > 0


@pytest.mark.slow
def test_two_processes_thaw_a_frozen_backbone(tmp_path):
    """With recomputed activations, whose hooks distributed training has to wait for, and with an average."""
    options = {"epochs": 3, "freeze_epochs": 1, "gradient_checkpointing": True, "ema_decay": 0.9}
    folder = two_processes(tmp_path, False, save_epochs=1, **options)
    one, two, three = (weights(folder / f"model_epoch_{epoch}.pth") for epoch in (1, 2, 3))
    name = "tower.backbone.blocks.0.attn.qkv.weight"
    assert not torch.equal(one[name], two[name]) and not torch.equal(two[name], three[name])
