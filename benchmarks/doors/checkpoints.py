"""style_encoder.load_encoder: checkpoints with a few bytes changed, with NaN, and with random build arguments."""

import copy
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save

from benchmarks.doors import mutated, refused
from common.models.weight_files import read_weights
from model import VisionStyleEncoder
from style_encoder import KIND, load_encoder

VALUES = (
    None, True, -1, 0, 1, 2.5, 10**6, 10**9, 10**12, 10**30, -5, "x", "", "../x", "hf-hub:a/b", "/etc/passwd",
    float("nan"), float("inf"), [], [1], {}, {"a": 1}, b"x", (1, 2), {1: 2},
)  # fmt: skip
MODEL_ARGS = (
    "depth",
    "embed_dim",
    "num_heads",
    "img_size",
    "patch_size",
    "checkpoint_path",
    "in_chans",
    "mlp_ratio",
    "x",
)


def trial(random: Random, folder: Path) -> str:
    content = copy.deepcopy(_content())
    match random.choice(["bytes", "safetensors", "build", "model_args", "content", "nan", "whole"]):
        case "bytes":
            path, data = folder / "a.pth", mutated(random, _pth(_content()))
        case "safetensors":
            return _try_safetensors(random, folder / "a.safetensors")
        case "build":
            name = random.choice([*content["build"], "pretrained", "x"])
            content["build"][name] = random.choice(VALUES)
            path, data = folder / "a.pth", _pth(content)
        case "model_args":
            content["build"]["model_args"] = {random.choice(MODEL_ARGS): random.choice(VALUES)}
            path, data = folder / "a.pth", _pth(content)
        case "content":
            content[random.choice(list(content))] = random.choice(VALUES)
            path, data = folder / "a.pth", _pth(content)
        case "nan":
            name = random.choice(list(content["model_state_dict"]))
            tensor = content["model_state_dict"][name]
            tensor[(-1,) * tensor.ndim] = random.choice([float("nan"), float("inf"), float("-inf")])
            path = folder / "a.pth"
            path.write_bytes(_pth(content))
            try:
                load_encoder(path, torch.device("cpu"))
            except ValueError as error:
                assert name in str(error)
                return refused(error, path)
            raise AssertionError(f"{name} with NaN was loaded")
        case _:
            path, data = folder / "a.pth", _pth(content)
    path.write_bytes(data)
    try:
        encoder, read = load_encoder(path, torch.device("cpu"))
    except ValueError as error:
        return refused(error, path)
    assert read["kind"] == KIND and set(encoder.state_dict()) == set(_content()["model_state_dict"])
    if data == _pth(_content()):
        for name, tensor in encoder.state_dict().items():
            assert torch.equal(tensor, _content()["model_state_dict"][name])
    return "read"


def _try_safetensors(random: Random, path: Path) -> str:
    weights = {
        "a": torch.randn(3, generator=torch.Generator().manual_seed(random.getrandbits(30))),
        "b": torch.ones(2, 2),
    }
    data = save(weights)
    changed = mutated(random, data) if random.random() < 0.8 else data
    path.write_bytes(changed)
    try:
        read = read_weights(path)
    except ValueError as error:
        assert changed != data
        return refused(error, path)
    assert changed != data or all(torch.equal(read[name], weights[name]) for name in weights)
    return "read"


@cache
def _content() -> dict[str, Any]:
    encoder = VisionStyleEncoder("test_vit.r160_in1k", image_size=32, style_width=8)
    return {
        "format": 1,
        "kind": KIND,
        "build": encoder.build,
        "preprocessing": encoder.preprocessing,
        "model_state_dict": encoder.state_dict(),
        "settings": {},
        "step": 3,
    }


def _pth(content: dict[str, Any]) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()
