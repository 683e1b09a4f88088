"""What was found, as a picture: one row for each query, the query first, the finds after it, best first.

queries (files or words), paths, cosines -> PNG
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from common.checkpoint import write_atomically
from common.images import open_image

SIDE, GAP, LINE = 160, 12, 18  # pixels
COLUMNS = 10  # finds beside each other; more go into further lines
INK, FRAME = (32, 33, 36), (190, 30, 45)


def draw_results(
    path: str | Path, queries: Sequence[Path | str], found: Sequence[Sequence[Path]], scores: Sequence[Sequence[float]]
) -> None:
    """queries: a Path is shown as its image, words as words."""
    columns = min(COLUMNS, max(len(row) for row in found))
    lines = [max(1, -(-len(row) // columns)) for row in found]
    cell = SIDE + 2 * LINE + GAP
    sheet = Image.new("RGB", (GAP + (columns + 1) * (SIDE + GAP), GAP + sum(lines) * cell), "white")
    top = GAP
    for query, row, values, height in zip(queries, found, scores, lines):
        _draw_query(sheet, query, GAP, top)
        for place, (image, score) in enumerate(zip(row, values)):
            left = GAP + (1 + place % columns) * (SIDE + GAP)
            caption = f"{place + 1}   {score:.4f}\n{_short(image)}"
            _draw_image(sheet, image, caption, left, top + place // columns * cell)
        top += height * cell
    with write_atomically(path) as file:
        sheet.save(file, format="PNG")


def _draw_query(sheet: Image.Image, query: Path | str, left: int, top: int) -> None:
    if isinstance(query, Path):
        _draw_image(sheet, query, f"query\n{_short(query)}", left, top)
    else:
        font = ImageFont.load_default(14)
        ImageDraw.Draw(sheet).multiline_text((left + 8, top + 8), textwrap.fill(query, 18), INK, font)
    ImageDraw.Draw(sheet).rectangle([left - 2, top - 2, left + SIDE + 1, top + SIDE + 1], outline=FRAME, width=2)


def _draw_image(sheet: Image.Image, path: Path, caption: str, left: int, top: int) -> None:
    """The whole image in a square, a file that is gone since as an empty one."""
    try:
        picture = ImageOps.pad(open_image(path, at_least=SIDE), (SIDE, SIDE), color=(244, 244, 244))
    except (ValueError, OSError):
        picture = Image.new("RGB", (SIDE, SIDE), (224, 224, 224))
    sheet.paste(picture, (left, top))
    ImageDraw.Draw(sheet).multiline_text((left, top + SIDE + 2), caption, INK, ImageFont.load_default(13), spacing=2)


def _short(path: Path) -> str:
    """The end of a path that fits below a picture."""
    name = "/".join(path.parts[-2:])
    return name if len(name) <= 24 else f"..{name[-22:]}"
