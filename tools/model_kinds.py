"""Kinds of models on the Hub: the text of each one's card, with an example that runs as it stands."""

from pathlib import Path
from typing import Any

from common.models.model_card import Kind
from common.text.schema import read_checked

OURS = "vision-wrapper"
KINDS = {  # by `kind` or `model_type` in config.json, or by the files of the folder
    "style encoder": Kind(
        "Embeds images by their style, for comparison by cosine; if trained for it, also predicts a text encoder's "
        "embeddings of the style's description.",
        OURS,
        "image-feature-extraction",
        ("style", "timm"),
        "from model import VisionStyleEncoder\nfrom style_encoder import read_image\n\n"
        'encoder = VisionStyleEncoder.from_pretrained("{name}")\n'
        'style = encoder(read_image("a.png", encoder)[None]).style  # (1, S), unit length',
    ),
    "clip": Kind(
        "Embeds images and texts in one space.",
        OURS,
        "zero-shot-image-classification",
        ("clip", "open_clip"),
        'from clip.model import CLIPModel\n\nmodel = CLIPModel.from_pretrained("{name}")\n'
        'vectors = model.encode_text(["a red house", "two birds"])  # (2, D), unit length',
    ),
    "blip2_gated": Kind(
        "Answers questions about images: a BLIP-2 whose Q-Former is conditioned on style features. Holds the trained "
        "weights; the others come from the base model, if one is named.",
        OURS,
        "visual-question-answering",
        ("blip-2", "style"),
        'from blip2_gated.model import Blip2OPTGated\n\nmodel = Blip2OPTGated.from_pretrained("{name}")\n'
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
        'folder = snapshot_download("{name}")  # for python llava/inference.py --model_id BASE --adapter FOLDER',
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
    config = read_checked(staged / "config.json", dict[str, Any])
    if "kind" in config:
        if config["kind"] not in list(KINDS):
            raise ValueError(f"config.json: kind {ascii(config['kind'])[:60]}: expected one of {', '.join(KINDS)}")
        return KINDS[config["kind"]]
    if "architecture" in config and "model_type" not in config:
        return KINDS["timm"]
    if config.get("model_type") == "clip":
        return KINDS["transformers clip"]
    return KINDS["vision" if config.get("model_type") in VISION_TYPES else "language"]
