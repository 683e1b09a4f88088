"""A trained model as others load it: a folder with weights, configuration and a model card, here or on the Hub.

    python tools/push_to_hub.py checkpoints/best.pth --output hub/style --license mit          look at it, edit its card
    python tools/push_to_hub.py hub/style --name you/style                                     then upload it
    python tools/push_to_hub.py work_dirs/mine --name you/vitp                                 a folder of ViTP or LLaVA
    python tools/push_to_hub.py checkpoints/blip2_gated/best.pt --called /models/opt=Salesforce/blip2-opt-2.7b ...

Files of the style encoder, CLIP and BLIP2-gated are loaded by their own tools and functions again, from the folder or
by `you/style`; ViTP's and LLaVA's folders by transformers; what tools/export_style.py writes by onnxruntime or timm.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import run_script
from common.models.hub import stage, upload
from common.models.model_card import Facts, Kind, facts_of_content, facts_of_folder, read_card, write_card
from common.models.model_folder import is_model_folder, read_model_folder

OURS = "vision-wrapper"
KINDS = {  # `kind` or `model_type` in config.json, or what else tells
    "style encoder": Kind(
        "Gives images a style vector to compare them by, and where it was trained to, what a text encoder gives for "
        "the words of their style.",
        OURS,
        "image-feature-extraction",
        ("style", "timm"),
        "from style_encoder import load_encoder, read_image\n\n"
        'encoder, content = load_encoder("{name}", torch.device("cpu"))\n'
        'style = encoder(read_image("a.png", encoder)[None]).style  # (1, S), unit length',
    ),
    "clip": Kind(
        "Puts images and their words at the same place.",
        OURS,
        "zero-shot-image-classification",
        ("clip", "open_clip"),
        'from clip.checkpoint import load_clip\n\nmodel, _ = load_clip("{name}")\n'
        'vectors = model.encode_text(["a red house", "two birds"])  # (2, D), unit length',
    ),
    "blip2_gated": Kind(
        "Answers questions about pictures: a BLIP-2 whose Q-Former is told the style. Holds what was trained; the "
        "rest comes from the model it was made from, where one is named.",
        OURS,
        "visual-question-answering",
        ("blip-2", "style"),
        'from blip2_gated.checkpoint import load_gated\n\nmodel, _ = load_gated("{name}")\n'
        'answers = model.predict_answers(model.prepare(["a.png"]), ["In which style is this picture drawn?"])',
    ),
    "transformers clip": Kind(
        "Puts images and their words at the same place.",
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
        "Looks at images and speaks about them.",
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
        "Networks for onnxruntime; preprocessing.json says how a file becomes their input.",
        "onnx",
        "",
        (),
        'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{name}")',
    ),
}
VISION_TYPES = ("internvl_vision", "timm_wrapper", "intern_vit_6b")


def kind_of(staged: Path) -> Kind:
    """What is in a staged folder, by the files and the config.json in it."""
    if any(staged.glob("*.onnx")):
        return KINDS["onnx"]
    if (staged / "adapter_config.json").is_file():
        return KINDS["adapter"]
    if not (staged / "config.json").is_file():
        raise ValueError("no config.json lies beside the weights; a whole folder of a finished run is needed")
    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    if "kind" in config:
        return KINDS[config["kind"]]
    if "architecture" in config and "model_type" not in config:
        return KINDS["timm"]
    if config.get("model_type") == "clip":
        return KINDS["transformers clip"]
    return KINDS["vision" if config.get("model_type") in VISION_TYPES else "language"]


def read_facts(staged: Path, source: Path) -> Facts:
    if is_model_folder(staged):
        return facts_of_content(read_model_folder(staged), source)
    return facts_of_folder(staged, source)


def add_card(staged: Path, source: Path, name: str, licence: str) -> None:
    written = read_card(source) if source.is_dir() else ""
    if not written:
        write_card(staged / "README.md", name, kind_of(staged), read_facts(staged, source), licence)
    elif licence:
        raise ValueError(f"{source}: has a card already; name the licence in its README.md, or take that file away")
    else:
        (staged / "README.md").write_text(written, encoding="utf-8")


def main(argv: list[str]) -> dict[str, Any]:
    args = read_arguments(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        if args.output and folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder}: is not empty; give --output another name")
        folder.mkdir(parents=True, exist_ok=True)
        stage(args.model, folder, args.called)
        add_card(folder, args.model, args.name or folder.name, args.license)
        licensed = "\nlicense: " in (folder / "README.md").read_text(encoding="utf-8")
        files = sorted(path.name for path in folder.iterdir())
        address = upload(folder, args.name, args.private) if args.name else ""
    where = address or str(folder)
    print(f"{where}: {', '.join(files)}")
    if not licensed:
        print("no licence is named in README.md (--license)")
    return {"where": where, "files": files}


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/push_to_hub.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a weights file of this project, or a folder that holds a model")
    parser.add_argument("--name", default="", help="where it goes on the Hub: owner/name; without, nothing is uploaded")
    parser.add_argument("--output", type=Path, help="keep the folder that is uploaded, or would be, here")
    parser.add_argument("--license", default="", help="as the Hub calls it: mit, apache-2.0, ...; yours to choose")
    parser.add_argument("--private", action="store_true", help="for you alone, if it is made now")
    parser.add_argument(
        "--called",
        action="append",
        default=[],
        metavar="PATH=NAME",
        help="what others know a path of this machine by; may be given again",
    )
    args = parser.parse_args(argv)
    if not args.name and not args.output:
        raise ValueError("give --output FOLDER to look at, or --name OWNER/NAME to upload to, or both")
    if wrong := [one for one in args.called if not all(one.partition("=")[::2])]:
        raise ValueError(f"--called {wrong[0]}: expected PATH=NAME")
    args.called = dict(one.split("=", 1) for one in args.called)
    return args


if __name__ == "__main__":
    run_script(main)
