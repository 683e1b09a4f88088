"""The vision encoder of a trained model, for use without the rest.

    python vitp/extract_vit.py --checkpoint work_dirs/mine/checkpoint-8000 --output vit_weights/vitp_vit.pth
    python vitp/extract_vit.py work_dirs/mine vit_weights/vit            a folder for transformers' AutoModel
    python vitp/extract_vit.py work_dirs/mine vit_timm --format timm               a folder for timm.create_model
    python vitp/extract_vit.py work_dirs/mine vit_timm.safetensors --format timm   its tensors alone

A checkpoint is a folder of Trainer, of Hugging Face or of InternVL, or a file in it. .pth and .safetensors hold
InternViT's own names, with the config in <name>.json next to them. Nothing is rounded without --dtype.
"""

import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import timm
import torch
from transformers import GotOcr2ImageProcessor
from transformers.utils import logging

from common.cli.errors import run_script
from common.cli.outputs import refuse_overwriting
from common.cli.tool_parser import tool
from common.models.backbone import write_timm_folder
from common.models.checkpoint_file import write_tensors
from common.text.files import write_json
from vitp.key_mapping import Weights, timm_arguments, vit_from_transformers, vit_to_timm
from vitp.model import TIMM
from vitp.vision_encoder import PLAIN_VIT, Vit, build_vit, internvit_settings, read_vit

FILE_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def write_file(path: Path, weights: Weights, settings: dict) -> None:
    """The tensors, and `settings` in <name>.json next to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, weights)
    write_json(path.with_suffix(".json"), settings)


def timm_weights(vit: Vit) -> Weights:
    """Under timm's names, the only ones of an encoder that is one of timm's."""
    if vit.config.model_type == TIMM:
        return {name.removeprefix("timm_model."): value for name, value in vit.weights.items()}
    return vit_to_timm(vit_from_transformers(vit.weights))


def timm_settings(vit: Vit) -> dict:
    """The same model is timm.models.VisionTransformer(**build)."""
    return {
        "class": "timm.models.VisionTransformer",
        "build": timm_arguments(vit.config),
        "mean": vit.image_mean,
        "std": vit.image_std,
    }


def write_vit(output: Path, file_format: str, vit: Vit) -> None:
    is_file = output.suffix in FILE_SUFFIXES
    if file_format == "hf" and is_file:
        raise ValueError(f"{output}: --format hf writes a folder; give a name without {output.suffix}")
    if file_format == "internvit" and not is_file:
        raise ValueError(f"{output}: --format internvit writes a file; let its name end in .pth or .safetensors")
    if file_format == "hf":  # for AutoModel and AutoImageProcessor
        build_vit(vit).save_pretrained(output)
        size = dict(zip(("height", "width"), vit.config.image_size))
        GotOcr2ImageProcessor(size=size, image_mean=vit.image_mean, image_std=vit.image_std).save_pretrained(output)
    elif not is_file:  # for timm.create_model("local-dir:FOLDER", pretrained=True)
        if vit.config.model_type == TIMM:
            model = timm.create_model(vit.config.architecture, **{"num_classes": 0, **(vit.config.model_args or {})})
        else:
            model = timm.create_model(PLAIN_VIT, **timm_settings(vit)["build"])
        model.to(vit.dtype).load_state_dict(timm_weights(vit))
        write_timm_folder(output, model, vit.config.image_size[0], vit.image_mean, vit.image_std)
    elif vit.config.model_type == TIMM:
        write_file(
            output,
            timm_weights(vit),
            {**vit.config.to_dict(), "image_mean": vit.image_mean, "image_std": vit.image_std},
        )
    elif file_format == "timm":
        write_file(output, timm_weights(vit), timm_settings(vit))
    else:
        write_file(output, vit_from_transformers(vit.weights), internvit_settings(vit))


@tool
def main(
    paths: Sequence[str] = (),  # checkpoint and output, in place of the flags
    *,
    checkpoint: str = "",  # a folder, or a file of weights
    output: str = "",  # what to write: .pth, .safetensors, or a folder
    format: Literal["internvit", "hf", "timm"] | None = None,  # by default hf for a folder, internvit for a file
    config: str | None = None,  # config.json, where none is next to the weights
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,  # by default unchanged
    json: bool = False,
) -> dict:
    positional = [*paths]
    checkpoint = checkpoint or (positional.pop(0) if positional else "")
    output = output or (positional.pop(0) if positional else "")
    if not checkpoint or not output or positional:
        raise ValueError("two paths are needed: extract_vit.py --checkpoint CHECKPOINT --output OUTPUT")
    refuse_overwriting({"checkpoint": checkpoint, "config": config, "output": output})
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    format = format or ("internvit" if Path(output).suffix in FILE_SUFFIXES else "hf")
    vit = read_vit(checkpoint, config)
    if dtype:
        wanted = getattr(torch, dtype)
        weights = {n: value.to(wanted) if value.is_floating_point() else value for n, value in vit.weights.items()}
        vit = vit._replace(weights=weights)
    write_vit(Path(output), format, vit)
    result = {
        "checkpoint": checkpoint,
        "output": output,
        "format": format,
        "tensors": len(vit.weights),
        "parameters": sum(value.numel() for value in vit.weights.values()),
        "tensors_left": vit.num_others,
        "dtype": str(vit.dtype).removeprefix("torch."),
    }
    text = (
        f"{output}: {result['parameters']:,} parameters in {result['tensors']} tensors, {result['dtype']}; "
        f"{vit.num_others} tensors of the projector and language model not included"
    )
    print(dumps(result) if json else text)
    return result


if __name__ == "__main__":
    run_script(main)
