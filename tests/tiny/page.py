"""The web page: tiny models of every kind, and images of which one has words like HTML in its name, and a comment."""

import json
from pathlib import Path

from conftest import draw_styles
from PIL import Image

from blip2_gated.checkpoint import save_full
from blip2_gated.prompts import TEMPLATE
from common.images.io import list_images
from tiny.blip2 import opened
from tiny.llava import write_llava
from tiny.vitp import internvl_folder
from vitp.chat_template import prepare_tokenizer
from vitp.demo import train_tokenizer

EVIL = "<img src=x onerror=window.evil=1> **bold**"
SECRET = "taken at home"
TEXTS = f"a red house\n\n{EVIL}\ntwo birds\na red house"
QUESTION = "In which style is this drawn?"


def write_page_files(folder: Path, style: str, clip: Path) -> dict[str, str]:
    """-> flags of app.py and their values."""
    draw_styles(folder / "images", images=3, targets=False)
    first = list_images(folder / "images")[0]
    Image.open(first).save(first.with_name(f"{EVIL}.jpg"), comment=SECRET)  # Pillow hands a comment on to its copies
    write_llava(folder / "llava")
    internvl_folder(folder / "vitp")
    tokenizer = train_tokenizer(["user assistant system"], 300)
    prepare_tokenizer(tokenizer)
    tokenizer.save_pretrained(folder / "vitp")
    model = opened("film", False)
    arguments = {
        "efficientnet": {"name": "test_efficientnet", "pretrained": False, "output_dim": 0, "image_size": None},
        "gating": {"kind": "film", "per_head": False, "init_scale": 1.0},
        "lora": None,
        "trained": "gates",
        "mapper": {"num_tokens": 3, "hidden": 32, "dropout": 0.1},
        "template": TEMPLATE,
        "max_tokens": 48,
    }
    build = {"labels": model.styles.labels, "spellings": ["Noto"], "frozen_dtype": "fp32", "model": arguments}
    save_full(folder / "gated.pt", model, build)
    return {
        "style": style,
        "clip": str(clip),
        "folder": str(folder / "images"),
        "llava": str(folder / "llava"),
        "vitp": str(folder / "vitp"),
        "blip2": str(folder / "gated.pt"),
    }


def upload(api, content=b"0", name="a.png", **options):
    return api.post("upload", files={"files": (name, content)}, **options)


def ask(api, name, *data):
    """The event that answers a call, as text."""
    content = json.dumps({"data": data})  # with half characters, which httpx does not send
    reply = api.post(f"call/{name}", content=content, headers={"Content-Type": "application/json"})
    return api.get(f"call/{name}/{reply.json()['event_id']}").text if reply.status_code == 200 else reply.text
