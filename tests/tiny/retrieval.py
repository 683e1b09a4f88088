"""Retrieval: images of four classes by colour, and a random network."""

import numpy as np
from PIL import Image

VIT = "test_vit:random"
# metadata of an index, but for its folders
MADE = {"weights": "w.pth", "key": "k", "pooling": "mean", "layer": -1, "flip": False, "tiles": 1, "image_size": 32}


def draw(folder, numbers):
    """One class a hue; images of one class differ little."""
    for number in numbers:
        random = np.random.default_rng(number)
        path = folder / f"class_{number % 4}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [220, 220, 20]][number % 4])
        pixels = colour + random.integers(-20, 20, (36, 36, 3)) + 10 * random.standard_normal((36, 1, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
