"""CLIP: a model of milliseconds a step, drawn captions, the flags of a run."""

import json
from pathlib import Path

import torch
from conftest import flags
from PIL import Image

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


PERSONA = {
    "file_name": "images/a.png",
    "title": "Story",
    "character": "Mira",
    "appearance": "Red hair.",
    "personality": "",
    "url": "u",
}
TEXTS = ["a red house", "two cats sleep under a tree in the garden", "夕阳下的海"]


def small(**more):
    torch.manual_seed(0)
    return CLIPModel("small", image_size=32, projection_dim=24, **more).eval()


def pictures(size=32, count=3):
    return torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


def write_colours(folder: Path) -> Path:
    """Pairs of six colours: five pictures of each, two texts of each picture."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for colour, value in COLOURS.items():
        for number in range(5):
            Image.new("RGB", (20, 24), value).save(folder / "images" / f"{colour}{number}.png")
            entries.append(
                {
                    "image_path": f"images/{colour}{number}.png",
                    "category": colour,
                    "caption": [f"a {colour} picture without anything on it", f"All is {colour}."],
                }
            )
    (folder / "data.json").write_text(json.dumps(entries))
    return folder
