"""Sample pictures of the page, drawn when it starts, so that no demo has to be run first.

scenes and styles of common/samples -> folder/<number>.png, and thumbnails of several side by side
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from common.samples.scenes import single_scene
from common.samples.styles import STYLES

SIZE, THUMBNAIL, GAP = 160, 120, 6  # pixels
DRAWN = (
    ("star", 3, "watercolour"),
    ("fish", 9, "watercolour"),
    ("star", 3, "woodcut"),
    ("house", 1, "mosaic"),
)  # seeds


class Sample(NamedTuple):
    path: str
    caption: str


def draw_samples(folder: Path) -> list[Sample]:
    """The pictures of DRAWN, of which the first and the third show the same scene."""
    samples = []
    for number, (kind, seed, style) in enumerate(DRAWN):
        scene = single_scene(np.random.default_rng(seed), kind)
        path = folder / f"{number}.png"
        STYLES[style](scene, SIZE, np.random.default_rng(number)).save(path)
        samples.append(Sample(str(path), scene.caption))
    return samples


def draw_thumbnail(folder: Path, paths: Sequence[str]) -> str:
    """-> a picture of these pictures side by side."""
    sheet = Image.new("RGB", (len(paths) * (THUMBNAIL + GAP) - GAP, THUMBNAIL), "white")
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            sheet.paste(ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)), (number * (THUMBNAIL + GAP), 0))
    file = folder / f"{'_'.join(Path(path).stem for path in paths)}_small.png"
    sheet.save(file)
    return str(file)
