"""Weights of Hugging Face's Trainer and of other trainers: whole or sharded, safetensors or pickled.

folder, or a file in it -> the file that holds the weights or lists their shards -> {name: tensor}
"""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from common.models.checkpoint_file import check_finite, read_tensors
from common.text.schema import read_checked

WEIGHT_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
WRAPPERS = (  # where other trainers nest the weights: averaged ones, which are those they evaluate, before the last
    "state_dict_ema",
    "model_ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
)
PREFIXES = ("_orig_mod.", "module.", "model.", "backbone.")  # torch.compile, DDP, Lightning, OpenMMLab


class ShardIndex(TypedDict):
    """model.safetensors.index.json."""

    weight_map: dict[str, str]  # tensor: file


def find_weights(path: str | Path) -> Path:
    """A folder -> the file in it that holds the weights or lists their shards; a file -> itself.

    Of a name in WEIGHT_FILES that does not exist, the file in its place is taken, with a line on stderr: guides say
    pytorch_model.bin where Trainer has written model.safetensors for years.
    """
    path = Path(path)
    if path.is_file():
        return path
    folder = weights_folder(path)
    if not folder.is_dir():
        steps = sorted((int(saved.name.partition("-")[2]), saved.name) for saved in _checkpoints(folder.parent))
        existing = f"; {folder.parent} holds {', '.join(name for _, name in steps)}" if steps else ""
        raise FileNotFoundError(f"{path}: no such file or folder of weights{existing}")
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            if folder != path:
                print(f"{path}: no such file; using {name} in its place", file=sys.stderr)
            return folder / name
    for shard in folder.iterdir():
        if shard.name.startswith(("global_step", "pytorch_model_fsdp")):
            deepspeed = shard.name.startswith("global_step")
            command = f"python {folder}/zero_to_fp32.py {folder} {folder}" if deepspeed else "accelerate merge-weights"
            raise ValueError(
                f"{folder}: holds only the shards of a distributed run ({shard.name}); merge them first: {command}"
            )
    raise FileNotFoundError(f"{folder}: no weights in it; expected one of {', '.join(WEIGHT_FILES)}")


def weights_folder(path: str | Path) -> Path:
    """The folder of a name in WEIGHT_FILES, whether that file exists or not; any other path as it is."""
    path = Path(path)
    return path.parent if path.name in WEIGHT_FILES else path


def model_folder(source: str | Path) -> str:
    """For loaders of whole folders: the folder of a file of weights with a config.json; any other source as it is."""
    folder = weights_folder(source)
    if folder == Path(source) or not (folder / "config.json").is_file():
        return str(source)
    find_weights(source)  # says what is used in the place of a missing name
    return str(folder)


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Every tensor under its name in the file. ValueError names a file that cannot be read, or holds NaN."""
    file = find_weights(path)
    weights = _read_shards(file) if file.suffix == ".json" else unwrap(read_tensors(file))
    if not isinstance(weights, dict) or not all(map(_is_named_tensor, weights.items())):
        raise ValueError(f"{file}: no file of weights, it holds other values than named tensors")
    check_finite(weights, file)
    return weights


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def unwrap(content: Any) -> Any:
    """The named tensors among what a trainer saved with them; content of any other kind as it is."""
    while isinstance(content, dict):
        nested = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), None)
        if nested is None:
            break
        content = nested
    return content


def strip_prefixes(weights: dict[str, Any], own: Collection[str] = ()) -> dict[str, Any]:
    """Names without PREFIXES, in any order and number; tensors without a prefix are of other parts, such as a head.

    own: names of the model; a prefix that begins one of them stays.
    """
    while True:
        for prefix in PREFIXES:
            if any(name.startswith(prefix) for name in weights) and not any(name.startswith(prefix) for name in own):
                weights = {
                    name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)
                }
                break
        else:
            return weights


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    files = read_checked(index, ShardIndex)["weight_map"]
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(set(files.values())):
        if Path(name).name != name:
            raise ValueError(f"{index}: lists {ascii(name)}; expected names of files in its folder")
        shard = index.parent / name
        if not shard.is_file():
            raise FileNotFoundError(f"{shard}: no such file, but {index.name} lists it; is the download complete?")
        tensors = read_tensors(shard)
        if not isinstance(tensors, dict):
            raise ValueError(f"{shard}: no file of weights, it holds other values than named tensors")
        weights |= tensors
    if differing := weights.keys() ^ files.keys():
        raise ValueError(f"{index}: its shards hold other tensors than it lists, such as {min(differing)}")
    return weights


def _checkpoints(run: Path) -> list[Path]:
    """Trainer's checkpoint-N folders of a run."""
    return [path for path in run.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
