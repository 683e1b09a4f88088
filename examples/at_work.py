"""The README's picture: what is nearest to a picture in style, what a sentence finds, and where CLIP sees it.

    make demo demo-clip
    python examples/at_work.py

The pictures are drawn for it: neither model was trained on them.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from clip.heatmaps import heatmap, overlay
from clip.model import CLIPModel
from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from common.samples.layouts import create_sample_dataset
from model import VisionStyleEncoder
from style_encoder import encode_images

STYLE_ENCODER, CLIP = "checkpoints/demo/best.pth", "model-checkpoint/demo/best_model.pth"
SEED, SCENES, SHOWN, TEXT = 1, 240, 4, "two large yellow trees, in front of hills"


@tool
def main(*, output: Path = Path("docs/at_work.png"), folder: Path = Path("data/at_work")) -> None:
    create_sample_dataset(folder, SCENES, SEED, layout="captions")
    paths = sorted((folder / "images").glob("*.png"))
    images = [open_image(path) for path in paths]
    styles = encode_images(paths, VisionStyleEncoder.from_pretrained(STYLE_ENCODER))  # (N, S) of length 1
    similarity = styles @ styles[0]
    alike = [Cell([images[i]], f"{similarity[i]:.2f}") for i in similarity.topk(SHOWN).indices.tolist()]
    model = CLIPModel.from_pretrained(CLIP)
    pixels = torch.stack([model.preprocess(image) for image in images])
    with torch.inference_mode():
        text = model.encode_text([TEXT])
        similarity = (model.encode_image(pixels) @ text.T)[:, 0]
    found = similarity.topk(SHOWN).indices.tolist()
    seen = heatmap(model, pixels[found], text.expand(len(found), -1))
    shown = [model.preprocess.visible(images[i]) for i in found]
    cells = [Cell([image, overlay(image, heat)], f"{similarity[i]:.2f}") for i, image, heat in zip(found, shown, seen)]
    sections = {"in the style of the first, most alike first": alike, f"found for “{TEXT}”, and where": cells}
    save_picture(output, contact_sheet(sections, columns=SHOWN, side=160))


if __name__ == "__main__":
    run_script(main)
