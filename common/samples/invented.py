"""Drawn styles without end: pictures of invented contents in invented styles.

style seed   -> InventedStyle  (invented_makers.py)
content seed -> pieces         (invented_contents.py) -> drawing (invented_drawing.py) -> (S, S, 3) uint8

Everything is a pure function of its arguments; with the same version of Pillow the same arguments give the same bytes.

    python -m common.samples.invented docs/invented_styles.png --seed 2
"""

import sys
from functools import lru_cache
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
from joblib import Parallel, delayed
from jsonargparse.typing import NonNegativeInt, PositiveInt
from PIL import Image

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.cache_files import map_array, read_cache_index, write_cache_index
from common.images.contact_sheet import save_picture
from common.samples.invented_contents import SUBJECTS
from common.samples.invented_drawing import Drawing
from common.samples.invented_makers import draw_style, draw_variant, legible
from common.samples.invented_style import InventedStyle
from common.text.files import write_atomically

__all__ = ["InventedStyle", "bank_contents", "draw", "draw_bank", "invented_style", "read_bank"]

MAKER = 4  # styles
EDITION = 1  # of the pictures; raised when the same arguments give others, so that no older bank is read from a cache
POOL = 4  # contents of one subject in a bank, in multiples of the contents that a style shows


def draw(style: InventedStyle, content_seed: int, size: int = 128) -> np.ndarray:
    """A content in a style -> (size, size, 3) uint8"""
    return Drawing(style, content_seed, size).picture()


@lru_cache(maxsize=4096)
def invented_style(seed: int) -> InventedStyle:
    """The style of a seed. Four seeds in a row are one maker's: half of the last three are variants of the first."""
    random, first = np.random.default_rng([seed, 601]), seed - seed % MAKER
    if seed == first or random.random() < 0.5:
        return draw_style(random)
    siblings = [invented_style(number) for number in range(first, seed)]
    while True:  # some parameters have no effect beside others
        style = legible(draw_variant(random, siblings[0]))
        if all(np.abs(_specimen(style) - _specimen(sibling)).mean() > 3 for sibling in siblings):  # levels
            return style


@lru_cache(maxsize=1024)
def _specimen(style: InventedStyle) -> np.ndarray:
    """A small picture of each of two subjects, the style's own ones if it has two."""
    subjects = [SUBJECTS.index(subject) for subject in (*sorted(set(style.subjects)), "icon", "glyph")[:2]]
    return np.stack([draw(style, 8 + subject, 32) for subject in subjects]).astype(np.float32)


def bank_contents(styles: int, per_style: int, seed: int = 0) -> np.ndarray:
    """Content seeds of a bank (styles, per_style). Styles of one subject choose from one pool of POOL * per_style."""
    random = np.random.default_rng([seed, 809])
    seeds = np.empty((styles, per_style), dtype=np.int64)
    for number in range(styles):
        subjects = np.array([SUBJECTS.index(name) for name in invented_style(style_seed(seed, number)).subjects])
        chosen = seed * 1_000_000 + random.permutation(POOL * per_style)[:per_style]
        seeds[number] = chosen * len(SUBJECTS) + subjects[chosen % len(subjects)]
    return seeds


def style_seed(seed: int, number: int) -> int:
    """Seed of a style of a bank: banks of different seeds share no style."""
    return seed * 1_000_000 + number


def draw_bank(styles: int, per_style: int, size: int, seed: int = 0) -> np.ndarray:
    """`styles` invented styles, each with `per_style` of its contents -> (styles, per_style, size, size, 3) uint8"""
    if min(styles, per_style) < 1 or size < 16:
        raise ValueError(f"{styles} styles of {per_style} pictures of {size} pixels: expected 1, 1 and 16 or more")
    contents = bank_contents(styles, per_style, seed)
    jobs = -1 if contents.size > 500 else 1  # starting processes takes a second or two
    rows = Parallel(jobs)(
        delayed(_draw_row)(invented_style(style_seed(seed, number)), contents[number].tolist(), size)
        for number in range(styles)
    )
    return np.stack(rows)


def read_bank(styles: int, per_style: int, size: int, cache_dir: str | Path | None, seed: int = 0) -> np.ndarray:
    """draw_bank, kept in a file of `cache_dir` and mapped into memory from there."""
    if not styles:
        return np.empty((0, per_style, size, size, 3), np.uint8)
    if cache_dir is None:
        return draw_bank(styles, per_style, size, seed)
    path = Path(cache_dir, f"invented-{EDITION}-{styles}-{per_style}-{size}-{seed}.bin")
    index = path.with_suffix(".json")
    if read_cache_index(index) is None:
        print(f"drawing {styles * per_style} pictures in {styles} invented styles, once")
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(draw_bank(styles, per_style, size, seed).tobytes())
        write_cache_index(index, {}, [path])
    return map_array(path, np.uint8, (styles, per_style, size, size, 3))


def _draw_row(style: InventedStyle, contents: list[int], size: int) -> np.ndarray:
    return np.stack([draw(style, content, size) for content in contents])


@tool
def main(
    path: Path,
    *,
    rows: PositiveInt = 20,  # styles
    columns: PositiveInt = 12,  # contents of a style
    size: PositiveInt = 48,  # pixels a side of a picture
    seed: NonNegativeInt = 0,
) -> None:
    bank = draw_bank(rows, columns, size, seed)
    sheet = bank.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    save_picture(path, Image.fromarray(sheet).quantize(256))


if __name__ == "__main__":
    run_script(main)
