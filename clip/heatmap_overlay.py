"""Overlays of heat maps on images.

image (PIL), map (S, S) in [0, 1], text -> the image and its overlay side by side, the text below
"""

import matplotlib
import numpy as np
import torch
from PIL import Image

from clip.heatmaps import enlarge
from common.images.contact_sheet import GAP, LINE, draw_text, wrap
from common.images.transforms import square

SIDE = 320  # pixels of one image
COLOURS = matplotlib.colormaps["inferno"]  # perceptually uniform: in greyscale too


def overlay(image: Image.Image, heat: torch.Tensor, side: int = SIDE) -> Image.Image:
    """The centred square of an image under its map (rows, columns) in [0, 1]: low values dim, high ones in colour."""
    pixels = square(np.asarray(image), side).astype(np.float32)
    strength = enlarge(heat[None].float().cpu(), side)[0].numpy()[..., None]  # (side, side, 1)
    colour = COLOURS(strength[..., 0])[..., :3] * 255
    share = 0.35 + 0.3 * strength
    return Image.fromarray((pixels * (1 - share) + colour * share).astype(np.uint8))


def side_by_side(image: Image.Image, heat: torch.Tensor, text: str, caption: str) -> Image.Image:
    """The input of the model, its overlay, and below them the text, wrapped, and a caption in one line."""
    width = 2 * SIDE + 3 * GAP
    lines = wrap(text, width - 2 * GAP)
    sheet = Image.new("RGB", (width, SIDE + 3 * GAP + LINE * (len(lines) + 1) + 4), "white")
    sheet.paste(Image.fromarray(square(np.asarray(image), SIDE)), (GAP, GAP))
    sheet.paste(overlay(image, heat), (2 * GAP + SIDE, GAP))
    draw_text(sheet, lines, caption, GAP, SIDE + 2 * GAP)
    return sheet
