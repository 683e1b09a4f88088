"""CLIP: a model of milliseconds a step, drawn captions, the flags of a run."""

from pathlib import Path

import torch
from conftest import flags

from clip.huggingface import write_huggingface
from clip.model import CLIPModel

TINY_CLIP = {
    "architecture": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "tokenizer": {"kind": "clip", "context_length": 77},
    "sigmoid": False,
}


def write_clip(folder: Path) -> Path:
    """A Hugging Face CLIP folder whose training takes milliseconds a step."""
    torch.manual_seed(0)
    write_huggingface(CLIPModel(config=dict(TINY_CLIP)), folder)
    return folder


def clip_flags(data: Path, model: Path, folder: Path) -> list[str]:
    """Flags of a tiny run, but for its length; its folders are below `folder`."""
    names = {"checkpoint_dir": "model-checkpoint", "log_dir": "logs", "results_dir": "results", "cache_dir": "cache"}
    return [
        *flags(data_dir=data, model_name=model, **{flag: folder / name for flag, name in names.items()}),
        *flags(learning_rate=1e-3, warmup_steps=2, log_steps=1, save_steps=1, device="cpu"),
    ]
