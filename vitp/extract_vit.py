"""The vision encoder of a trained model, for use without the rest.

    python vitp/extract_vit.py --checkpoint work_dirs/mine/checkpoint-8000 --output vit_weights/vitp_vit.pth
    python vitp/extract_vit.py work_dirs/mine vit_weights/vit            a folder for transformers' AutoModel
    python vitp/extract_vit.py work_dirs/mine vit_timm --format timm               a folder for timm.create_model
    python vitp/extract_vit.py work_dirs/mine vit_timm.safetensors --format timm   its tensors alone

A checkpoint is a folder of Trainer, of Hugging Face or of InternVL, or a file in it. .pth and .safetensors hold
InternViT's own names, and <name>.json its config beside them. Nothing is rounded unless --dtype says so.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import timm
import torch
from safetensors.torch import save_file
from transformers import AutoModel, GotOcr2ImageProcessor
from transformers.utils import logging

from common.cli.errors import run_script
from common.models.backbone import write_timm_folder
from common.text.files import write_atomically, write_json
from vitp.key_mapping import Weights, vit_from_transformers, vit_to_timm
from vitp.model import TIMM
from vitp.vision_encoder import Vit, internvit_settings, read_vit

FORMATS = ("internvit", "hf", "timm")
FILES = (".pth", ".pt", ".bin", ".safetensors")
PLAIN_VIT = "vit_base_patch16_224"  # timm's name for a ViT of any size, whose sizes are arguments


def write_folder(folder: Path, vit: Vit) -> None:
    """config.json, model.safetensors, preprocessor_config.json: AutoModel and AutoImageProcessor read it."""
    model = AutoModel.from_config(vit.config)
    model.to(next(iter(vit.weights.values())).dtype).load_state_dict(vit.weights)
    model.save_pretrained(folder)
    side = {"height": vit.config.image_size[0], "width": vit.config.image_size[1]}
    GotOcr2ImageProcessor(size=side, image_mean=vit.image_mean, image_std=vit.image_std).save_pretrained(folder)


def write_file(path: Path, weights: Weights, settings: dict) -> None:
    """The tensors, and <name>.json beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in weights.items()}
    with write_atomically(path) as file:
        if path.suffix == ".safetensors":
            save_file(weights, file.name, metadata={"format": "pt"})
        else:
            torch.save(weights, file)
    write_json(path.with_suffix(".json"), settings)


def timm_settings(vit: Vit) -> dict:
    """How to build the same model: timm.models.VisionTransformer(**build)."""
    config = vit.config
    if config.norm_type != "layer_norm" or config.hidden_act != "gelu" or not config.use_mean_pooling:
        raise ValueError(f"timm's VisionTransformer has no {config.norm_type}, {config.hidden_act}; use --format hf")
    build = {
        "img_size": config.image_size[0],
        "patch_size": config.patch_size[0],
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.attention_bias,
        "init_values": config.layer_scale_init_value,
        "final_norm": False,
        "num_classes": 0,
    }
    return {"class": "timm.models.VisionTransformer", "build": build, "mean": vit.image_mean, "std": vit.image_std}


def write_timm(folder: Path, vit: Vit) -> None:
    """What timm.create_model("local-dir:FOLDER", pretrained=True) opens."""
    if vit.config.model_type == TIMM:
        model = timm.create_model(vit.config.architecture, **{"num_classes": 0, **(vit.config.model_args or {})})
        weights = own_timm_weights(vit)
    else:
        model = timm.create_model(PLAIN_VIT, **timm_settings(vit)["build"])
        weights = vit_to_timm(vit_from_transformers(vit.weights))
    model.to(next(iter(weights.values())).dtype).load_state_dict(weights)
    write_timm_folder(folder, model, vit.config.image_size[0], vit.image_mean, vit.image_std)


def own_timm_weights(vit: Vit) -> Weights:
    """Of an encoder that is one of timm's own: its names are the only ones it has."""
    return {name.removeprefix("timm_model."): value for name, value in vit.weights.items()}


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="extract_vit.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", help="checkpoint and output, where the flags do not name them")
    parser.add_argument("--checkpoint", help="a folder, or a file of weights")
    parser.add_argument("--output", help="what to write: .pth, .safetensors, or a folder")
    parser.add_argument("--format", choices=FORMATS, help="otherwise hf for a folder, internvit for a file")
    parser.add_argument("--config", help="config.json, where none is beside the weights")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="otherwise as it is")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    given = [*args.paths]
    checkpoint = args.checkpoint or (given.pop(0) if given else None)
    output = args.output or (given.pop(0) if given else None)
    if not checkpoint or not output or given:
        raise ValueError("two paths are needed: extract_vit.py --checkpoint CHECKPOINT --output OUTPUT")
    output = Path(output)
    kind = args.format or ("internvit" if output.suffix in FILES else "hf")
    vit = read_vit(checkpoint, args.config)
    if args.dtype:
        dtype = getattr(torch, args.dtype)
        vit = vit._replace(weights={name: value.to(dtype) for name, value in vit.weights.items()})
    _write(output, kind, vit)
    result = {
        "checkpoint": str(checkpoint),
        "output": str(output),
        "format": kind,
        "tensors": len(vit.weights),
        "parameters": sum(value.numel() for value in vit.weights.values()),
        "tensors_left": vit.left,
        "dtype": str(next(iter(vit.weights.values())).dtype).removeprefix("torch."),
    }
    text = (
        f"{output}: {result['parameters']:,} parameters in {result['tensors']} tensors, {result['dtype']}; "
        f"{vit.left} tensors of the projector and language model left behind"
    )
    print(json.dumps(result) if args.json else text)
    return result


def _write(output: Path, kind: str, vit: Vit) -> None:
    if kind == "hf":
        if output.suffix in FILES:
            raise ValueError(f"{output}: --format hf writes a folder; give a name without {output.suffix}")
        write_folder(output, vit)
    elif kind == "timm" and output.suffix not in FILES:
        write_timm(output, vit)
    elif not output.suffix:
        raise ValueError(f"{output}: --format {kind} writes a file; let its name end in .pth or .safetensors")
    elif vit.config.model_type == TIMM:
        images = {"image_mean": vit.image_mean, "image_std": vit.image_std}
        write_file(output, own_timm_weights(vit), vit.config.to_dict() | images)
    elif kind == "timm":
        write_file(output, vit_to_timm(vit_from_transformers(vit.weights)), timm_settings(vit))
    else:
        write_file(output, vit_from_transformers(vit.weights), internvit_settings(vit))


if __name__ == "__main__":
    run_script(main)
