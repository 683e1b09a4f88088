"""Check of weights, published or own: which system loads them, their metadata, and a known answer.

    python tools/check_weights.py ViT-B-32:openai                a CLIP of open_clip, with a tag; ViT-B/32 is OpenAI's
    python tools/check_weights.py llava-hf/llava-1.5-7b-hf       a name on the Hub, fetched once; or a folder
    python tools/check_weights.py tf_efficientnet_lite0:FILE     a timm model, or one with a file of weights
    python tools/check_weights.py checkpoints/best.pth --json    a file of any system here

weights -> loaded by their system -> architecture, parameters, activation, preprocessing, tokenizer, licence, files
        -> an answer about drawn pictures to judge by eye: cosines, or a greedy answer
        -> compared with the publisher's own code (CLIP, timm) and with metadata of well-known models: a difference is
        an error
"""

import sys
from json import dumps
from pathlib import Path
from typing import Any, cast

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from huggingface_hub import ModelCard
from PIL import Image, ImageDraw
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import logging

from blip2_gated.backbone import read_blip2
from blip2_gated.checkpoint import load_gated
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from clip.checkpoint import is_clip_name
from clip.image_encoder import CLIPImageEncoder
from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.models.checkpoint_file import read_tensors
from common.models.model_config import read_model_config
from common.models.model_folder import fetch_folder, is_hub_name
from common.models.weight_files import weights_folder
from common.training.device import choose_device
from llava.checkpoint import base_and_adapter, load_image_text_model, trained_system_prompt
from llava.prefix_cache import ImagePrefixCache
from llava.tokens import ChatFormatter, encode_images
from retrieval.encoders import FOLDERS, BackboneEncoder, TimmImageEncoder, kind_of, open_encoder
from tools.published_weights import REFERENCES, clip_cosines, timm_vectors
from vitp.inference import VQAPredictor

SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "README.md")  # of a model on the Hub, apart from its weights
TEXTS = ["a red circle", "a blue square"]
QUESTION = "What colour is the circle?"
ANSWER_TOKENS = 16
TOLERANCE = 1e-3  # of cosines, from those of the publisher's code
USE = {  # system: what the weights are then used by
    "style encoder": "python style_comparator.py A.png B.png --weights {}",
    "clip": 'python clip/inference.py --data_root FOLDER --model {} --query "a text"',
    "InternViT": "python retrieval/extract_features.py --image_dir FOLDER --output F.npz --vit_checkpoint {}",
    "timm": "python retrieval/extract_features.py --image_dir FOLDER --output F.npz --vit_checkpoint {}",
    "blip2_gated": 'python blip2_gated/inference.py A.png "question" --checkpoint {}',
    "blip-2": "python blip2_gated/train.py --model.blip2 {}",
    "internvl": 'python vitp/inference.py A.png "question" --model_name_or_path {}',
    "llava": 'python llava/inference.py --image A.png --text "a text" --model_id {}',
}
NEED_FOLDERS = ("InternViT", "timm", "internvl")  # systems that take no name on the Hub


@tool
def main(
    weights: str,  # a file, a folder, a name on the Hub, a CLIP of open_clip (NAME or NAME:TAG), or a timm model
    *,
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    logging.disable_progress_bar()
    path = fetch(weights)
    system = find_system(path)
    with torch.no_grad():
        metadata = CHECKS.get(system, check_encoder)(path, choose_device(device))
    use = USE[system].format(path if system in NEED_FOLDERS else weights)
    report = {"weights": weights, "system": system, "use": use, **metadata}
    report |= {"licence": read_licence(path) or metadata.get("licence", ""), "files": list_files(path)}
    expected = REFERENCES.get(Path(weights).name, {})
    report["differs"] = metadata.get("differs", []) + [
        f"{name} {metadata.get(name)}, published {value}"
        for name, value in expected.items()
        if metadata.get(name) != value
    ]
    print(dumps(report, indent=2, ensure_ascii=False) if json else format_report(report))
    if report["differs"]:
        raise ValueError(f"{weights}: {'; '.join(report['differs'])}")
    return report


def fetch(weights: str) -> str:
    """A name on the Hub -> its folder in the cache on this machine, or local-dir:FOLDER if it is timm's; anything else
    as it is."""
    name, _, source = weights.partition(":")
    folder = Path(weights)
    if not (is_clip_name(name, source) or name.startswith("timm/")) and is_hub_name(weights):
        folder = fetch_folder(weights, (*SMALL_FILES, "*.safetensors"))
        if not any(folder.glob("*.safetensors")):
            folder = fetch_folder(weights, (*SMALL_FILES, "*.bin"))
        weights = str(folder)
    config = read_model_config(folder / "config.json") if (folder / "config.json").is_file() else {}
    return f"local-dir:{weights}" if "architecture" in config and "model_type" not in config else weights


def find_system(path: str) -> str:
    """A key of USE, by the `kind` or the model_type that the weights bring."""
    folder = weights_folder(path)
    if (folder / "config.json").is_file():
        config = read_model_config(folder / "config.json")
        systems = {name: name for name in USE} | FOLDERS | {"internvl": "internvl", "internvl_chat": "internvl"}
        kind = config.get("kind", config.get("model_type"))
        if kind in systems:
            return systems[kind]
        if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            return "llava"
    elif (folder / "adapter_config.json").is_file():
        return "llava"
    if folder.is_file() and folder.suffix != ".safetensors":
        content = read_tensors(folder)
        if isinstance(content, dict) and content.get("kind") == "blip2_gated":
            return "blip2_gated"
    return kind_of(path)


def check_encoder(path: str, device: torch.device) -> dict[str, Any]:
    """An image encoder of retrieval/encoders.py: cosines of the red circle with the other pictures, and with texts."""
    encoder, pictures = open_encoder(path, device), drawn_pictures()
    vectors = encoder(torch.stack([encoder.preprocess(picture) for picture in pictures.values()]).to(device)).cpu()
    answer: dict[str, Any] = {
        f"cosine of 'red circle' and '{name}'": round(float(vectors[0] @ vector), 4)
        for name, vector in zip(list(pictures)[1:], vectors[1:])
    }
    metadata, differs, images = describe_network(encoder), [], list(pictures.values())
    if isinstance(encoder, CLIPImageEncoder):
        model = encoder.model
        cosines = vectors @ encoder.encode_text(TEXTS).cpu().T
        answer = {f"cosines of '{name}' and {TEXTS}": round_all(row) for name, row in zip(pictures, cosines)}
        metadata |= describe_images(model.image_size, model.mean, model.std, model.config["interpolation"])
        metadata["tokenizer"] = f"{model.config['tokenizer']['kind']}, {model.tokenizer.context_length} tokens a text"
        differs = difference("open_clip or transformers", cosines, clip_cosines(path, images, TEXTS))
    elif isinstance(encoder, TimmImageEncoder):
        config = cast(Any, encoder.backbone).pretrained_cfg
        metadata |= describe_images(encoder.image_size, encoder.mean, encoder.std, config["interpolation"])
        metadata["architecture"] = config["architecture"]
        if ":" not in path.removeprefix("local-dir:"):  # timm's own weights
            metadata["licence"] = config.get("license") or ""
            differs = difference("timm", vectors, timm_vectors(path, images))
    elif isinstance(encoder, BackboneEncoder):
        metadata |= describe_images(encoder.image_size, encoder.mean, encoder.std, "bicubic")
    return metadata | {"vector": round_all(vectors[0, :4]), "answer": answer, "differs": differs}


def check_blip2(path: str, device: torch.device) -> dict[str, Any]:
    """A published BLIP-2, without gates."""
    blip2, tokenizer = read_blip2(path)
    return ask_blip2(Blip2OPTGated(blip2, tokenizer, StyleVocabulary(tokenizer, [])).to(device).eval())


def check_gated(path: str, device: torch.device) -> dict[str, Any]:
    return ask_blip2(load_gated(path, device)[0])


def ask_blip2(model: Blip2OPTGated) -> dict[str, Any]:
    (answer,) = model.predict_answers(model.prepare([red_circle()]), [QUESTION], num_beams=1)
    metadata = describe_network(model.blip2) | describe_images(model.image_size, model.mean, model.std, "bicubic")
    tokens = {
        "tokenizer": describe_tokenizer(model.prompts.tokenizer),
        "image_tokens": model.blip2.config.num_query_tokens,
    }
    return metadata | tokens | {"answer": {QUESTION: answer}}


def check_internvl(path: str, device: torch.device) -> dict[str, Any]:
    predictor = VQAPredictor(path, device)
    model, template, tiling = predictor.model, predictor.template, predictor.tiling
    (answer,) = predictor([([red_circle()], QUESTION)], ANSWER_TOKENS)
    metadata = describe_network(model) | describe_images(tiling.tile_size, tiling.mean, tiling.std, "bicubic")
    tokens = {"tokenizer": describe_tokenizer(template.tokenizer), "image_tokens": tiling.tokens}
    return metadata | tokens | {"answer": {QUESTION: answer}}


def check_llava(path: str, device: torch.device) -> dict[str, Any]:
    base, adapter = base_and_adapter(path)
    model, processor = load_image_text_model(base, adapter, str(device))
    formatter, picture = ChatFormatter(processor, trained_system_prompt(path)), red_circle()
    cache = ImagePrefixCache(model, formatter, [picture])
    (ids,) = cache.generate([0], [cache.rest(formatter.prompt(QUESTION))], ANSWER_TOKENS)
    pixels, (run,) = processor.image_processor, encode_images(processor, [[picture]]).runs
    size = model.config.vision_config.image_size
    metadata = describe_network(model) | describe_images(
        size if isinstance(size, int) else size[0],
        torch.tensor(pixels.image_mean),
        torch.tensor(pixels.image_std),
        Image.Resampling(pixels.resample).name.lower(),
    )
    tokens = {"tokenizer": describe_tokenizer(processor.tokenizer), "image_tokens": len(run)}
    return metadata | tokens | {"answer": {QUESTION: processor.tokenizer.decode(ids, skip_special_tokens=True)}}


CHECKS = {"blip-2": check_blip2, "blip2_gated": check_gated, "internvl": check_internvl, "llava": check_llava}


def describe_network(network: nn.Module) -> dict[str, Any]:
    """activation: classes of the network's activation functions, as they are computed."""
    names = {
        type(module).__name__
        for module in network.modules()
        if type(module).__name__ == "QuickGELU" or type(module).__module__.endswith((".activation", ".activations"))
    }
    inner = network.model.network if isinstance(network, CLIPImageEncoder) else getattr(network, "backbone", network)
    return {
        "architecture": type(inner).__name__,
        "parameters": sum(parameter.numel() for parameter in inner.parameters()),
        "activation": ", ".join(sorted(names - {"MultiheadAttention"})),
    }


def describe_images(image_size: int, mean: Any, std: Any, interpolation: str) -> dict[str, Any]:
    statistics = {name: round_all(torch.as_tensor(values).flatten()) for name, values in (("mean", mean), ("std", std))}
    return {"image_size": image_size, **statistics, "interpolation": interpolation}


def describe_tokenizer(tokenizer: Any) -> str:
    return f"{type(tokenizer).__name__}, {len(tokenizer)} tokens"


def difference(publisher: str, cosines: torch.Tensor, theirs: torch.Tensor | None) -> list[str]:
    """The difference from the publisher's code, if it is larger than rounding."""
    largest = 0.0 if theirs is None else float((cosines - theirs).abs().max())
    return [f"up to {largest:.4f} from {publisher}'s own output"] if largest > TOLERANCE else []


def round_all(values: torch.Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]


def red_circle(left: int = 64, top: int = 64) -> Image.Image:
    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).ellipse([left, top, left + 128, top + 128], fill="red")
    return image


def drawn_pictures() -> dict[str, Image.Image]:
    """The first two should be nearest, whatever the encoder."""
    square = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(square).rectangle([64, 64, 192, 192], fill="blue")
    return {"red circle": red_circle(), "red circle elsewhere": red_circle(40, 80), "blue square": square}


def read_licence(path: str) -> str:
    card = Path(path.removeprefix("local-dir:")) / "README.md"
    return (ModelCard.load(card).data.license or "") if card.is_file() else ""


def list_files(path: str) -> dict[str, int]:
    """Names and bytes."""
    place = Path(path.partition(":")[2] or path)
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    return {file.name: file.stat().st_size for file in files if file.is_file()}


def format_report(report: dict[str, Any]) -> str:
    """A line for each value that the weights have."""
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            value = "".join(f"\n    {key}: {item}" for key, item in value.items())
        if name == "licence" and not value:
            value = "not stated with the weights: see where they come from"
        lines += [f"{name:14}{value}"] if value else []
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
