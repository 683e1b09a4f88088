"""Tensors of a checkpoint of Trainer, Hugging Face or InternVL.

folder (whole or sharded), or one file -> {name: tensor}
"""

import json
from pathlib import Path

import torch

from common.models.checkpoint_file import read_tensors

WEIGHT_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)


def find_weights(path: str | Path) -> Path:
    """A folder -> the file in it that holds the weights or lists their shards; a file -> itself."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder of weights")
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    for shard in path.iterdir():
        if shard.name.startswith(("global_step", "pytorch_model_fsdp")):
            deepspeed = f"python {path}/zero_to_fp32.py {path} {path}"
            command = deepspeed if shard.name.startswith("global_step") else "accelerate merge-weights"
            raise ValueError(
                f"{path}: holds only the shards of a distributed run ({shard.name}); merge them first: {command}"
            )
    raise FileNotFoundError(f"{path}: no weights in it; expected one of {', '.join(WEIGHT_FILES)}")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Every tensor under its name in the file. ValueError names a file that cannot be read."""
    file = find_weights(path)
    if file.suffix == ".json":
        return _read_shards(file)
    content = read_tensors(file)
    for wrapper in ("state_dict", "module", "model"):  # other trainers nest the weights
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{file}: no file of weights, it holds other values than named tensors")
    return content


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(set(files.values())):
        shard = index.parent / name
        if not shard.is_file():
            raise FileNotFoundError(f"{shard}: no such file, but {index.name} lists it; is the download complete?")
        weights |= read_tensors(shard)
    if differing := weights.keys() ^ files.keys():
        raise ValueError(f"{index}: its shards hold other tensors than it lists, such as {min(differing)}")
    return weights
