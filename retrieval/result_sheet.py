"""Contact sheet of search results: each query, an image or words, and its results, best first.

queries, paths, cosines -> PNG
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image

SIDE, FRAME = 160, 4  # pixels of a thumbnail, and of the frame around a query
COLUMNS = 11  # a query and ten results; more go into further rows
PAPER, RED = (244, 244, 244), (190, 30, 45)


def draw_results(
    file: str | Path, queries: Sequence[Path | str], paths: Sequence[Sequence[Path]], scores: Sequence[Sequence[float]]
) -> None:
    """queries: a Path is shown as its image, a string as words."""
    sections = {}
    for query, *matches in zip(queries, paths, scores):
        cells = []
        if isinstance(query, Path):
            framed = ImageOps.expand(_thumbnail(query, SIDE - 2 * FRAME), FRAME, RED)
            cells.append(Cell([framed], query.name, "query"))
        for rank, (path, score) in enumerate(zip(*matches), 1):
            cells.append(Cell([_thumbnail(path, SIDE)], path.name, f"{rank}   {score:.4f}"))
        sections[str(query)] = cells
    save_picture(file, contact_sheet(sections, COLUMNS, SIDE))


def _thumbnail(path: Path, side: int) -> Image.Image:
    """The whole image in a square; an empty square if the file is gone or broken by now."""
    try:
        return ImageOps.pad(open_image(path, at_least=side), (side, side), color=PAPER)
    except (ValueError, OSError):
        return Image.new("RGB", (side, side), PAPER)
