"""Upload of a trained model to the Hugging Face Hub: a folder with weights, configuration and model card.

    python tools/push_to_hub.py checkpoints/best.pth --output hub/style --license mit       inspect it, edit its card
    python tools/push_to_hub.py hub/style --name you/style                                  then upload it
    python tools/push_to_hub.py work_dirs/mine --name you/vitp                              a folder of ViTP or LLaVA
    python tools/push_to_hub.py checkpoints/blip2_gated/best.pt --hub_id /models/opt=Salesforce/blip2-opt-2.7b ...

Models of the style encoder, CLIP and BLIP2-gated are loaded by their own tools and functions, from the folder or as
`you/style`; folders of ViTP and LLaVA by transformers; folders of tools/export_*.py by onnxruntime or timm.

Only files of known names go up, and of links only those to files of the folder or of the Hub's cache; the others
are listed. Paths of this machine, passwords and tokens are removed from settings, and refused elsewhere.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from huggingface_hub import HfApi, ModelCard
from yaml import YAMLError

from common.cli.errors import printable, run_script
from common.cli.hub_failures import explain_hub
from common.cli.tool_parser import tool
from common.models.checkpoint_file import first_line, read_model_file
from common.models.model_card import checkpoint_metadata, folder_metadata, read_card, repository, write_card
from common.models.model_folder import is_model_folder, read_model_folder, write_model_folder
from common.models.scrub import HIDDEN, hide_secrets, is_local_path, is_secret_name, scrub
from common.text.files import write_json
from common.text.schema import read_checked
from tools.model_kinds import kind_of
from tools.upload_check import refuse_private

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
INFORMATION = ("settings", "_name_or_path", "model_id")  # keys that nothing is loaded from


def add_card(staged: Path, source: Path, name: str, licence: str) -> None:
    """Write README.md, or copy the one that an earlier call wrote into `source`."""
    card = _own_card(source)
    if card and licence:
        raise ValueError(f"{source}: has a card already; name the licence in its README.md, or delete that file")
    if card:
        refuse_private(source / "README.md")
        (staged / "README.md").write_text(card, encoding="utf-8")
        return
    ours = is_model_folder(staged)
    metadata = checkpoint_metadata(read_model_folder(staged), source) if ours else folder_metadata(staged, source)
    write_card(staged / "README.md", name, kind_of(staged), metadata, licence, repository())


@tool
def main(
    model: Path,  # a weights file of this project, or a folder that holds a model
    *,
    name: str = "",  # its name on the Hub: owner/name; without it nothing is uploaded
    output: Path | None = None,  # keep the folder that is uploaded, or would be, here
    license: str = "",  # an identifier of the Hub: mit, apache-2.0, ...; yours to choose
    private: bool = False,  # visible to you alone, if it is created now
    hub_id: Sequence[str] = (),  # PATH=NAME, one or more: the name on the Hub of a model that lies in a local path
) -> dict[str, Any]:
    if not name and not output:
        raise ValueError("give --output FOLDER to inspect the files, or --name OWNER/NAME to upload them, or both")
    if wrong := [pair for pair in hub_id if not all(pair.partition("=")[::2])]:
        raise ValueError(f"--hub_id {wrong[0]}: expected PATH=NAME")
    with tempfile.TemporaryDirectory() as temporary:
        folder = output or Path(temporary)
        if output and folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder}: is not empty; give --output another name")
        folder.mkdir(parents=True, exist_ok=True)
        left_out = stage_model(model, folder, dict(pair.split("=", 1) for pair in hub_id), keep=bool(output))
        add_card(folder, model, name or folder.name, license)
        try:
            licensed = ModelCard.load(folder / "README.md").data.license is not None
        except YAMLError as error:
            raise ValueError(f"{model / 'README.md'}: its head is not YAML ({first_line(error)})") from None
        files = sorted(path.name for path in folder.iterdir())
        location = upload(folder, name, private) if name else str(folder)
    print(f"{location}: {', '.join(files)}")
    if left_out:
        print(f"not uploaded: {', '.join(map(printable, left_out))}")
    if not repository():
        print("README.md names no repository of the code, since this copy has no git remote 'origin'")
    if not licensed:
        print("README.md names no licence (--license)")
    return {"location": location, "files": files, "left_out": left_out}


def stage_model(source: Path, folder: Path, hub_ids: dict[str, str], keep: bool = False) -> list[str]:
    """Fill an empty folder with the files to upload of a file of save_model, or of a folder with a model -> names of
    what else is in that folder.

    hub_ids: local path -> name on the Hub. keep: large files are hard links or copies; otherwise links to the source.
    """
    if source.is_file():
        content = read_model_file(source)
        weights = {"model_state_dict": content.pop("model_state_dict")}
        write_model_folder(folder, {**without_local_paths(content, hub_ids, source.name), **weights})
        return []
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    names = files_to_upload(source)
    for name in names:
        if _matches(name, CONFIGS):
            content = read_checked(source / name, dict[str, Any])
            write_json(folder / name, without_local_paths(content, hub_ids, name, strict=name != "settings.json"))
            continue
        refuse_private(source / name)
        _take(source / name, folder / name, keep)
    inner = [path for path in source.iterdir() if path.is_dir() and not path.is_symlink() and is_model_folder(path)]
    for path in inner:  # the style encoder of a LLaVA
        (folder / path.name).mkdir()
        stage_model(path, folder / path.name, hub_ids, keep)
    kept = {*names, *(path.name for path in inner), *(["README.md"] if _own_card(source) else [])}
    return sorted(path.name for path in source.iterdir() if path.name not in kept)


def files_to_upload(folder: Path) -> list[str]:
    """Names of the files that others need, of the folder itself alone; its README is written anew."""
    wanted = (*WEIGHTS, *CONFIGS, *TOKENIZERS)
    names = sorted(path.name for path in folder.iterdir() if _matches(path.name, wanted) and _is_own(path))
    if not any(_matches(name, WEIGHTS) for name in names):
        raise ValueError(f"{folder}: holds no weights ({', '.join(WEIGHTS)}); give the folder of a finished run")
    return names


def _is_own(path: Path) -> bool:
    """A regular file of its folder, or a link to one there, or to a blob of the Hub's cache that the folder is in."""
    folder = path.parent.resolve()
    target = path.resolve()
    homes = [folder, *([folder.parents[1] / "blobs"] if folder.parent.name == "snapshots" else [])]
    return target.is_file() and target.parent in homes


def _take(source: Path, staged: Path, keep: bool) -> None:
    if not keep:
        staged.symlink_to(source.resolve())
        return
    try:
        os.link(source.resolve(), staged)
    except OSError:  # another disk
        shutil.copyfile(source, staged)


def _own_card(source: Path) -> str:
    return read_card(source) if _is_own(source / "README.md") else ""


def without_local_paths(value: Any, hub_ids: dict[str, str], location: str, strict: bool = True) -> Any:
    """The same JSON value without paths of this machine, passwords and tokens, in values and in keys: paths in
    `hub_ids` are replaced by their names on the Hub, those that are mere information keep their last part; any other is
    a ValueError, since loading would need it."""
    if isinstance(value, dict):
        cleaned = {}
        for name, item in value.items():
            key = without_local_paths(name, hub_ids, f"{location}: a key", strict)
            inner = strict and name not in INFORMATION
            if is_secret_name(str(name)) and isinstance(item, str) and item:
                item = HIDDEN
            cleaned[key] = without_local_paths(item, hub_ids, f"{location}: {name}", inner)
        return cleaned
    if isinstance(value, (list, tuple)):
        return [without_local_paths(item, hub_ids, location, strict) for item in value]
    if not isinstance(value, str):
        return value
    if value in hub_ids:
        return hub_ids[value]
    if not strict:
        return scrub(value) if scrub(value) != value or not is_local_path(value) else Path(value).name
    if hide_secrets(value) != value:
        raise ValueError(f"{location} holds a password or a token; take it out")
    if is_local_path(value):
        raise ValueError(
            f"{location} is {value}, a path of this machine; name it on the Hub: --hub_id {value}=OWNER/NAME"
        )
    return value


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a staged folder, with the login of `hf auth login` -> address of the model, which is created if needed."""
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Upload model and model card")
    except Exception as error:  # of the network, the Hub, and the many libraries between
        reason, login = explain_hub(error), "; log in with `hf auth login`, then try again"
        raise ValueError(f"{name}: upload failed ({reason or first_line(error)}){'' if reason else login}") from error
    return str(address)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    run_script(main)
