"""A model as a folder that the Hub can hold, and back, to the same bits.

what save_model writes -> folder/config.json (kind, build, settings, metrics, ...), model.safetensors (weights),
facts.safetensors (what else is a tensor) -> what load_model_file reads

load_model takes a file of save_model, such a folder, or the name of one on the Hub (`owner/name`).
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.models.checkpoint_file import check_kind, load_model_file
from common.text.files import refuse_lfs_pointer, write_atomically, write_json

CONFIG, WEIGHTS, FACTS = "config.json", "model.safetensors", "facts.safetensors"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TENSOR = "tensor:"  # in config.json, before the name of a tensor of facts.safetensors
FILE_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".onnx")


def write_model_folder(folder: str | Path, content: dict[str, Any]) -> None:
    """content: all of a file of save_model."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    facts = {name: value for name, value in content.items() if name != "model_state_dict"}
    plain = _without_tensors(facts, "", tensors)
    _write_tensors(folder / WEIGHTS, content["model_state_dict"])
    if tensors:
        _write_tensors(folder / FACTS, tensors)
    write_json(folder / CONFIG, plain)


def read_model_folder(folder: str | Path) -> dict[str, Any]:
    """-> what write_model_folder was given; a folder that it did not write is a ValueError."""
    folder = Path(folder)
    try:
        facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        facts = {}
    if "kind" not in facts or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: holds no model of this project; expected {CONFIG} with a 'kind', and {WEIGHTS}")
    tensors = _read_tensors(folder / FACTS) if (folder / FACTS).is_file() else {}
    return {**_with_tensors(facts, tensors), "model_state_dict": _read_tensors(folder / WEIGHTS)}


def load_model(path: str | Path, kind: str) -> dict[str, Any]:
    """A file, a folder, or a name on the Hub -> what load_model_file gives."""
    if is_hub_name(path):
        path = fetch_folder(str(path))
    if not Path(path).is_dir():
        return load_model_file(path, kind)
    content = read_model_folder(path)
    check_kind(path, content, kind)
    return content


def is_hub_name(path: str | Path) -> bool:
    """`owner/name`, where nothing of that name, and no folder `owner`, is on this machine."""
    name = str(path)
    if not HUB_NAME.fullmatch(name) or name.endswith(FILE_SUFFIXES):
        return False
    return not Path(name).exists() and not Path(name).parent.is_dir()


def fetch_folder(name: str, files: tuple[str, ...] = (CONFIG, WEIGHTS, FACTS)) -> Path:
    """A model of the Hub -> its folder in the Hub's cache on this machine."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such name, not allowed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name}: no file or folder here, and not to be had from the Hub ({reason})") from None


def is_model_folder(path: str | Path) -> bool:
    """A folder, or a name on the Hub, that write_model_folder wrote, by the look of its config.json."""
    try:
        folder = fetch_folder(str(path), (CONFIG,)) if is_hub_name(path) else Path(path)
        return "kind" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing there, no network, not JSON
        return False


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    # Tied weights are one tensor under two names, which safetensors refuses: each name gets its own.
    apart = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with write_atomically(path) as file:
        save_file(apart, file.name, metadata={"format": "pt"})


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    refuse_lfs_pointer(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None


def _without_tensors(value: Any, place: str, found: dict[str, torch.Tensor]) -> Any:
    """The same with each tensor moved into `found` and named in its place."""
    if isinstance(value, torch.Tensor):
        found[place] = value
        return TENSOR + place
    if isinstance(value, dict):
        return {name: _without_tensors(one, f"{place}.{name}".lstrip("."), found) for name, one in value.items()}
    return value


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(TENSOR):
        return tensors[value.removeprefix(TENSOR)]
    if isinstance(value, dict):
        return {name: _with_tensors(one, tensors) for name, one in value.items()}
    return value
