"""What was found, as a picture: below each query, what it found, best first; a query that is an image comes before.

queries (files or words), paths, cosines -> PNG
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image

SIDE, FRAME = 160, 4  # pixels of a picture, and of the frame around a query
COLUMNS = 11  # a query and ten finds; more go into further rows
PAPER, RED = (244, 244, 244), (190, 30, 45)


def draw_results(
    path: str | Path, queries: Sequence[Path | str], found: Sequence[Sequence[Path]], scores: Sequence[Sequence[float]]
) -> None:
    """queries: a Path is shown as its image, words as words."""
    sections = {}
    for query, *row in zip(queries, found, scores):
        asked = [Cell([_framed(query)], query.name, "query")] if isinstance(query, Path) else []
        finds = [
            Cell([_whole(image, SIDE)], image.name, f"{place}   {score:.4f}")
            for place, (image, score) in enumerate(zip(*row), 1)
        ]
        sections[str(query)] = asked + finds
    save_picture(path, contact_sheet(sections, COLUMNS, SIDE))


def _whole(path: Path, side: int) -> Image.Image:
    """The whole image in a square, a file that is gone since as an empty one."""
    try:
        return ImageOps.pad(open_image(path, at_least=side), (side, side), color=PAPER)
    except (ValueError, OSError):
        return Image.new("RGB", (side, side), PAPER)


def _framed(path: Path) -> Image.Image:
    return ImageOps.expand(_whole(path, SIDE - 2 * FRAME), FRAME, RED)
