"""Which tensors does a folder or file hold, whoever wrote it?

folder of a Trainer, of Hugging Face or of InternVL (whole or in shards), or one file -> {name: tensor}
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.models.checkpoint_file import read_tensors
from common.text.files import LFS_HINT, is_lfs_pointer

WHOLE = (
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
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file or folder of weights")
        return path
    for name in WHOLE:
        if (path / name).is_file():
            return path / name
    sharded = [other.name for other in path.iterdir() if other.name.startswith(("global_step", "pytorch_model_fsdp"))]
    if sharded:
        how = f"python {path}/zero_to_fp32.py {path} {path}" if "global" in sharded[0] else "accelerate merge-weights"
        raise ValueError(
            f"{path}: holds the shards of a distributed run ({sharded[0]}) alone; gather them first: {how}"
        )
    raise FileNotFoundError(f"{path}: no weights in it; expected one of {', '.join(WHOLE)}")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Every tensor by its name in the file. ValueError names what cannot be read."""
    file = find_weights(path)
    if file.suffix == ".json":
        return _read_shards(file)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    content = read_tensors(file)
    for wrapper in ("state_dict", "module", "model"):  # what other trainers put around the weights
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{file}: holds no table of tensors, so it is not a file of weights")
    return content


def check_names(found: set[str], wanted: set[str], where: str | Path) -> None:
    """Every tensor has its place and every place its tensor, or a ValueError that says which not."""
    problems = [
        f"{len(names)} {what}, such as {sorted(names)[0]}"
        for what, names in (("are missing", wanted - found), ("have no place in the model", found - wanted))
        if names
    ]
    if problems:
        raise ValueError(f"{where}: its tensors are not the model's: {' and '.join(problems)}")


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(set(places.values())):
        shard = index.parent / name
        if not shard.is_file():
            raise FileNotFoundError(f"{shard}: no such file, but {index.name} lists it; is the download complete?")
        weights |= _read_safetensors(shard) if shard.suffix == ".safetensors" else read_tensors(shard)
    check_names(set(weights), set(places), index)
    return weights


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        reason = LFS_HINT if is_lfs_pointer(file) else f"broken ({error})"
        raise ValueError(f"{file}: {reason}") from None
