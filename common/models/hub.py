"""Upload of models to the Hugging Face Hub.

weights file or folder -> stage_model: a folder of exactly the files that others need, without local paths -> upload
"""

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from common.models.checkpoint_file import first_line, read_model_file
from common.models.model_folder import write_model_folder
from common.text.files import write_json

# Weights and the files that they are loaded with. Optimizer, resume state, logs and the command line stay here.
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
INFORMATION = ("settings", "_name_or_path")  # keys that nothing is loaded from
LOCAL_PATH = re.compile(r"(?:^|[\s=:,'\"])(?:~|/[\w.-]+)/[\w.-]|^\.\.?/|^[A-Za-z]:\\")


def stage_model(source: Path, folder: Path, hub_ids: dict[str, str]) -> None:
    """Fill an empty folder with the files to upload of a file of save_model, or of a folder with a model.

    hub_ids: local path -> name on the Hub. Large files of a folder become links to it.
    """
    if source.is_file():
        content = read_model_file(source)
        weights = {"model_state_dict": content.pop("model_state_dict")}
        write_model_folder(folder, {**without_local_paths(content, hub_ids, source.name), **weights})
        return
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    for name in files_to_upload(source):
        if _matches(name, CONFIGS):
            content = json.loads((source / name).read_text(encoding="utf-8"))
            write_json(folder / name, without_local_paths(content, hub_ids, name, strict=name != "settings.json"))
        else:
            (folder / name).symlink_to((source / name).resolve())


def files_to_upload(folder: Path) -> list[str]:
    """Names of the files that others need, of the folder itself alone; its README is written anew."""
    wanted = (*WEIGHTS, *CONFIGS, *TOKENIZERS)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and _matches(path.name, wanted))
    if not any(_matches(name, WEIGHTS) for name in names):
        raise ValueError(f"{folder}: holds no weights ({', '.join(WEIGHTS)}); give the folder of a finished run")
    return names


def without_local_paths(value: Any, hub_ids: dict[str, str], location: str, strict: bool = True) -> Any:
    """The same JSON value without paths of this machine: those in `hub_ids` are replaced by their names on the Hub,
    those that are mere information keep their last part; any other is a ValueError, since loading would need it."""
    if isinstance(value, dict):
        return {
            name: without_local_paths(item, hub_ids, f"{location}: {name}", strict and name not in INFORMATION)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_local_paths(item, hub_ids, location, strict) for item in value]
    if not isinstance(value, str) or not (value in hub_ids or is_local_path(value)):
        return value
    if strict and value not in hub_ids:
        raise ValueError(
            f"{location} is {value}, a path of this machine; name it on the Hub: --hub_id {value}=OWNER/NAME"
        )
    return hub_ids.get(value, Path(value.replace("\\", "/")).name)


def is_local_path(text: str) -> bool:
    """An absolute path, one that starts with ~, . or .., or a relative one that exists; never a template."""
    exists = "/" in text.strip("/") and len(text) < 256 and Path(text).exists()
    return "{%" not in text and "{{" not in text and (exists or bool(LOCAL_PATH.search(text)))


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a staged folder, with the login of `hf auth login` -> address of the model, which is created if needed."""
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Upload model and model card")
    except (OSError, ValueError, RuntimeError) as error:  # no network, no login, no such owner
        raise ValueError(
            f"{name}: upload failed ({first_line(error)}); log in with `hf auth login`, then try again"
        ) from error
    return str(address)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
