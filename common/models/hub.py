"""Which files of a model go to the Hub, and how do they get there?

weights file or folder -> stage: a folder of exactly what others need, no place of this machine in its JSON -> upload
"""

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from common.models.checkpoint_file import read_model_file
from common.models.model_folder import write_model_folder
from common.text.files import write_json

# Weights and what reads them; what a run needs to go on, its logs and its command line stay here.
WEIGHTS = ("*.safetensors", "*.onnx")
CONFIGS = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "trained_on.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "preprocessing.json",
    "settings.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "*.safetensors.index.json",
)
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "*.model", "*.jinja")
INFORMATION = ("settings", "_name_or_path")  # keys that nothing is built from
PLACE = re.compile(r"(?:^|[\s=:,'\"])(?:~|/[\w.-]+)/[\w.-]|^\.\.?/|^[A-Za-z]:\\")


def stage(source: Path, folder: Path, called: dict[str, str]) -> None:
    """Fill an empty folder with what is uploaded of a file of save_model, or of a folder that holds a model.

    called: places of this machine -> what others know them by. Large files of a folder become links to it.
    """
    if source.is_file():
        content = read_model_file(source)
        weights = {"model_state_dict": content.pop("model_state_dict")}
        write_model_folder(folder, {**without_places(content, called, source.name), **weights})
        return
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    files = files_to_upload(source)
    for name in files:
        if any(fnmatch(name, pattern) for pattern in CONFIGS):
            content = json.loads((source / name).read_text(encoding="utf-8"))
            write_json(folder / name, without_places(content, called, name, strict=name != "settings.json"))
        else:
            (folder / name).symlink_to((source / name).resolve())


def files_to_upload(folder: Path) -> list[str]:
    """Names of a folder's own files that others need; a README is written anew, folders within it are not looked at."""
    wanted = (*WEIGHTS, *CONFIGS, *TOKENIZERS)
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in wanted)
    )
    if not any(fnmatch(name, pattern) for name in names for pattern in WEIGHTS):
        raise ValueError(f"{folder}: holds no weights ({', '.join(WEIGHTS)}); the folder of a finished run is meant")
    return names


def without_places(value: Any, called: dict[str, str], where: str, strict: bool = True) -> Any:
    """The same JSON without paths of this machine: those in `called` get the name given there; of mere information
    the last part is left; any other is a ValueError, since whoever loads the model would look for it."""
    if isinstance(value, dict):
        return {
            name: without_places(one, called, f"{where}: {name}", strict and name not in INFORMATION)
            for name, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_places(one, called, where, strict) for one in value]
    if not isinstance(value, str):
        return value
    if value in called:
        return called[value]
    if not is_place(value):
        return value
    if strict:
        raise ValueError(
            f"{where} is {value}, a place on this machine; say what others know it by: --called {value}=OWNER/NAME"
        )
    return Path(value.replace("\\", "/")).name


def is_place(text: str) -> bool:
    """An absolute path, one from here or above, or a relative one that leads somewhere; never a template."""
    if "{%" in text or "{{" in text:
        return False
    return bool(PLACE.search(text)) or ("/" in text.strip("/") and len(text) < 256 and Path(text).exists())


def upload(folder: Path, name: str, private: bool) -> str:
    """A staged folder -> the address of the model on the Hub, made if it is not there. With the login of `hf auth
    login`."""
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="The model and its card")
    except (OSError, ValueError, RuntimeError) as error:  # no network, no login, no such owner
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name}: could not be uploaded ({reason}); `hf auth login` once, then again") from error
    return str(address)
