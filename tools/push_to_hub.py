"""Upload of a trained model to the Hugging Face Hub: a folder with weights, configuration and model card.

    python tools/push_to_hub.py checkpoints/best.pth --output hub/style --license mit       inspect it, edit its card
    python tools/push_to_hub.py hub/style --name you/style                                  then upload it
    python tools/push_to_hub.py work_dirs/mine --name you/vitp                              a folder of ViTP or LLaVA
    python tools/push_to_hub.py checkpoints/blip2_gated/best.pt --hub_id /models/opt=Salesforce/blip2-opt-2.7b ...

Models of the style encoder, CLIP and BLIP2-gated are loaded by their own tools and functions, from the folder or as
`you/style`; folders of ViTP and LLaVA by transformers; folders of tools/export_*.py by onnxruntime or timm.
"""

import json
import re
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

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.models.checkpoint_file import first_line, read_model_file
from common.models.model_card import Kind, checkpoint_metadata, folder_metadata, read_card, write_card
from common.models.model_folder import is_model_folder, read_model_folder, write_model_folder
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
INFORMATION = ("settings", "_name_or_path", "model_id")  # keys that nothing is loaded from
LOCAL_PATH = re.compile(r"(?:^|[\s=:,'\"])(?:~|/[\w.-]+)/[\w.-]|^\.\.?/|^[A-Za-z]:\\")
OURS = "vision-wrapper"
KINDS = {  # by `kind` or `model_type` in config.json, or by the files of the folder
    "style encoder": Kind(
        "Embeds images by their style, for comparison by cosine; if trained for it, also predicts a text encoder's "
        "embeddings of the style's description.",
        OURS,
        "image-feature-extraction",
        ("style", "timm"),
        "from style_encoder import load_encoder, read_image\n\n"
        'encoder, content = load_encoder("{name}", torch.device("cpu"))\n'
        'style = encoder(read_image("a.png", encoder)[None]).style  # (1, S), unit length',
    ),
    "clip": Kind(
        "Embeds images and texts in one space.",
        OURS,
        "zero-shot-image-classification",
        ("clip", "open_clip"),
        'from clip.checkpoint import load_clip\n\nmodel, _ = load_clip("{name}")\n'
        'vectors = model.encode_text(["a red house", "two birds"])  # (2, D), unit length',
    ),
    "blip2_gated": Kind(
        "Answers questions about images: a BLIP-2 whose Q-Former is conditioned on style features. Holds the trained "
        "weights; the others come from the base model, if one is named.",
        OURS,
        "visual-question-answering",
        ("blip-2", "style"),
        'from blip2_gated.checkpoint import load_gated\n\nmodel, _ = load_gated("{name}")\n'
        'answers = model.predict_answers(model.prepare(["a.png"]), ["In which style is this picture drawn?"])',
    ),
    "transformers clip": Kind(
        "Embeds images and texts in one space.",
        "transformers",
        "zero-shot-image-classification",
        ("clip",),
        'from transformers import CLIPModel, CLIPProcessor\n\nmodel = CLIPModel.from_pretrained("{name}")\n'
        'processor = CLIPProcessor.from_pretrained("{name}")',
    ),
    "vision": Kind(
        "A vision encoder.",
        "transformers",
        "image-feature-extraction",
        (),
        'from transformers import AutoImageProcessor, AutoModel\n\nmodel = AutoModel.from_pretrained("{name}")\n'
        'processor = AutoImageProcessor.from_pretrained("{name}")',
    ),
    "language": Kind(
        "Answers questions about images and describes them.",
        "transformers",
        "image-text-to-text",
        (),
        "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        'model = AutoModelForImageTextToText.from_pretrained("{name}")\n'
        'processor = AutoProcessor.from_pretrained("{name}")',
    ),
    "adapter": Kind(
        "A LoRA adapter for the model named above.",
        "peft",
        "image-text-to-text",
        ("lora",),
        "from huggingface_hub import snapshot_download\n\n"
        'folder = snapshot_download("{name}")  # then: python llava/inference.py --model_id BASE --adapter <folder>',
    ),
    "timm": Kind(
        "A vision backbone.",
        "timm",
        "image-feature-extraction",
        (),
        'import timm\n\nmodel = timm.create_model("hf-hub:{name}", pretrained=True)',
    ),
    "onnx": Kind(
        "Networks for onnxruntime; preprocessing.json describes how a file becomes their input.",
        "onnx",
        "",
        (),
        'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{name}")',
    ),
}
VISION_TYPES = ("internvl_vision", "timm_wrapper", "intern_vit_6b")


def kind_of(staged: Path) -> Kind:
    """The kind of a staged folder, by its files and its config.json."""
    if any(staged.glob("*.onnx")):
        return KINDS["onnx"]
    if (staged / "adapter_config.json").is_file():
        return KINDS["adapter"]
    if not (staged / "config.json").is_file():
        raise ValueError("there is no config.json next to the weights; give the whole folder of a finished run")
    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    if "kind" in config:
        return KINDS[config["kind"]]
    if "architecture" in config and "model_type" not in config:
        return KINDS["timm"]
    if config.get("model_type") == "clip":
        return KINDS["transformers clip"]
    return KINDS["vision" if config.get("model_type") in VISION_TYPES else "language"]


def add_card(staged: Path, source: Path, name: str, licence: str) -> None:
    """Write README.md, or copy the one that an earlier call wrote into `source`."""
    card = read_card(source)
    if card and licence:
        raise ValueError(f"{source}: has a card already; name the licence in its README.md, or delete that file")
    if card:
        (staged / "README.md").write_text(card, encoding="utf-8")
        return
    ours = is_model_folder(staged)
    metadata = checkpoint_metadata(read_model_folder(staged), source) if ours else folder_metadata(staged, source)
    write_card(staged / "README.md", name, kind_of(staged), metadata, licence)


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
        stage_model(model, folder, dict(pair.split("=", 1) for pair in hub_id))
        add_card(folder, model, name or folder.name, license)
        licensed = ModelCard.load(folder / "README.md").data.license is not None
        files = sorted(path.name for path in folder.iterdir())
        location = upload(folder, name, private) if name else str(folder)
    print(f"{location}: {', '.join(files)}")
    if not licensed:
        print("README.md names no licence (--license)")
    return {"location": location, "files": files}


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
    if "{%" in text or "{{" in text:
        return False
    return bool(LOCAL_PATH.search(text)) or ("/" in text.strip("/") and len(text) < 256 and Path(text).exists())


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


if __name__ == "__main__":
    run_script(main)
