"""Checkpoints as folders for the Hugging Face Hub, and back, to the same bits.

content of a checkpoint -> folder/config.json (kind, build, settings, metrics, ...), model.safetensors (weights),
metadata.safetensors (all other tensors) -> the same content

load_model takes a file of save_model, such a folder, or the name of one on the Hub (`owner/name`).
"""

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch.utils._pytree import keystr, tree_map, tree_map_with_path

from common.models.build_arguments import check_plain
from common.models.checkpoint_file import (
    FORMAT,
    Checkpoint,
    check_finite,
    first_line,
    read_model_file,
    read_tensors,
    write_tensors,
)
from common.text.files import write_json
from common.text.schema import check_type, read_checked

CONFIG, WEIGHTS, METADATA = "config.json", "model.safetensors", "metadata.safetensors"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TENSOR = "tensor:"  # in config.json, before the name of a tensor of metadata.safetensors
FILE_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".onnx")


def write_model_folder(folder: str | Path, content: dict[str, Any]) -> None:
    """content: all of a file of save_model."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}

    def extract(path: tuple, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        tensors[keystr(path)] = value
        return TENSOR + keystr(path)

    config = tree_map_with_path(extract, {name: content[name] for name in content if name != "model_state_dict"})
    write_tensors(folder / WEIGHTS, content["model_state_dict"])
    if tensors:
        write_tensors(folder / METADATA, tensors)
    write_json(folder / CONFIG, config)


def read_model_folder(folder: str | Path) -> dict[str, Any]:
    """-> the content given to write_model_folder. ValueError for any other folder."""
    folder = Path(folder)
    if not is_model_folder(folder) or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: holds no model of this project; expected {CONFIG} with a 'kind', and {WEIGHTS}")
    config = read_checked(folder / CONFIG, dict[str, Any])
    check_plain(config.get("build"), folder / CONFIG)
    tensors = read_tensors(folder / METADATA) if (folder / METADATA).is_file() else {}

    def insert(value: Any) -> Any:
        return tensors.get(value.removeprefix(TENSOR), value) if isinstance(value, str) else value

    try:
        content = {**tree_map(insert, config), "model_state_dict": read_tensors(folder / WEIGHTS)}
    except RecursionError:
        raise ValueError(f"{folder / CONFIG}: its values are nested too deeply") from None
    check_finite(check_type(content, Checkpoint, folder / CONFIG)["model_state_dict"], folder / WEIGHTS)
    return content


def load_model(path: str | Path, kind: str) -> dict[str, Any]:
    """A file, a folder, or a name on the Hub -> the content given to save_model, of this kind."""
    if is_hub_name(path):
        path = fetch_folder(str(path))
    content = read_model_folder(path) if Path(path).is_dir() else read_model_file(path)
    if content["kind"] != kind:
        raise ValueError(f"{path}: is a '{content['kind']}' checkpoint; a '{kind}' one is needed here")
    if content["format"] > FORMAT:
        raise ValueError(f"{path}: written by a newer version (format {content['format']}); update this repository")
    return content


def is_hub_name(path: str | Path) -> bool:
    """`owner/name`, unless a file or folder of that name, or a folder `owner`, exists on this machine."""
    could_be = HUB_NAME.fullmatch(str(path)) and not str(path).endswith(FILE_SUFFIXES)
    return bool(could_be) and not Path(path).exists() and not Path(path).parent.is_dir()


def fetch_folder(name: str, files: tuple[str, ...] = (CONFIG, WEIGHTS, METADATA)) -> Path:
    """A model of the Hub -> its folder in the Hub's cache on this machine."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such name, not allowed
        raise ValueError(
            f"{name}: no such file or folder, and not available on the Hub ({first_line(error)})"
        ) from None


def is_model_folder(path: str | Path) -> bool:
    """A folder, or a name on the Hub, of write_model_folder, judging by its config.json."""
    try:
        folder = fetch_folder(str(path), (CONFIG,)) if is_hub_name(path) else Path(path)
        return "kind" in read_checked(folder / CONFIG, dict[str, Any])
    except (OSError, ValueError):  # no such file, no network, not JSON
        return False
