"""Heat maps and search results as pictures to look at.

image (PIL), map (S, S) in [0, 1], lines of text -> the image beside the image under its map, the text below
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from clip.heatmaps import enlarge
from common.augment import square
from common.checkpoint import write_atomically

SIDE = 320  # pixels of one picture
GAP, LINE = 12, 21
INK, FAINT = (32, 33, 36), (110, 114, 120)
COLOURS = matplotlib.colormaps["inferno"]  # perceptually uniform: twice the heat looks twice as hot, in grey too
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
             "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Droid Sans Fallback",
             "Arial Unicode MS")  # fmt: skip


def overlay(image: Image.Image, heat: torch.Tensor, side: int = SIDE) -> Image.Image:
    """The centred square of an image under its map (rows, columns) in [0, 1]: cold places dim, hot ones in colour."""
    pixels = square(np.asarray(image), side).astype(np.float32)
    strength = enlarge(heat[None].float().cpu(), side)[0].numpy()[..., None]  # (side, side, 1)
    colour = COLOURS(strength[..., 0])[..., :3] * 255
    share = 0.35 + 0.3 * strength
    return Image.fromarray((pixels * (1 - share) + colour * share).astype(np.uint8))


def side_by_side(image: Image.Image, heat: torch.Tensor, text: str, facts: str) -> Image.Image:
    """What the model saw, the same under the map, the text in as many lines as it needs, the numbers in a last one."""
    width = 2 * SIDE + 3 * GAP
    lines = wrap(text, width - 2 * GAP)
    sheet = Image.new("RGB", (width, SIDE + 3 * GAP + LINE * (len(lines) + 1) + 4), "white")
    sheet.paste(Image.fromarray(square(np.asarray(image), SIDE)), (GAP, GAP))
    sheet.paste(overlay(image, heat), (2 * GAP + SIDE, GAP))
    _write(sheet, lines, facts, GAP, SIDE + 2 * GAP)
    return sheet


class Cell(NamedTuple):
    """Pictures above each other, with a text of two lines at most and a line of numbers below."""

    pictures: list[Image.Image]
    text: str
    facts: str


def contact_sheet(sections: dict[str, list[Cell]], columns: int = 4, side: int = 200) -> Image.Image:
    """Heading (may be '') -> cells, row by row."""
    rows = []
    for heading, cells in sections.items():
        rows += [heading] if heading else []
        rows += [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [2 * LINE if isinstance(row, str) else max(_height(cell, side) for cell in row) for row in rows]
    widest = max(len(row) for row in rows if not isinstance(row, str))
    sheet = Image.new("RGB", (widest * (side + GAP) + GAP, sum(heights) + GAP), "white")
    top = GAP
    for row, height in zip(rows, heights):
        if isinstance(row, str):
            _write(sheet, [_cut(row, sheet.width - 2 * GAP)], "", GAP, top + GAP // 2)
        else:
            for place, cell in enumerate(row):
                _paste(sheet, cell, GAP + place * (side + GAP), top, side)
        top += height
    return sheet


def _height(cell: Cell, side: int) -> int:
    return len(cell.pictures) * (side + GAP // 2) + LINE * (min(2, len(wrap(cell.text, side))) + 1) + 2 * GAP


def _paste(sheet: Image.Image, cell: Cell, left: int, top: int, side: int) -> None:
    for picture in cell.pictures:
        sheet.paste(Image.fromarray(square(np.asarray(picture), side)), (left, top))
        top += side + GAP // 2
    lines = wrap(cell.text, side)
    if len(lines) > 2:
        lines = [lines[0], _cut(f"{lines[1]} {lines[2]}", side)]
    _write(sheet, lines, _cut(cell.facts, side), left, top)


def save_picture(path: str | Path, picture: Image.Image) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, durable=False) as file:
        picture.save(file, "PNG")


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels: broken at spaces, and anywhere in writing without them."""
    font, lines, line = font_for(text), [], ""
    for word in _words(" ".join(text.split())):
        if line and font.getlength((line + word).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += word if line else word.lstrip()
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _cut(text: str, width: int) -> str:
    """The beginning of a text that fits into `width` pixels."""
    if font_for(text).getlength(text) <= width:
        return text
    while text and font_for(text).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ,.，。") + "…"


def _words(text: str) -> list[str]:
    """'a b 猫和' -> 'a ', 'b ', '猫', '和'; a word of more than 30 letters in pieces."""
    words = [""]
    for letter in text:
        if words[-1] and (words[-1][-1] == " " or _wide(letter) or _wide(words[-1][-1]) or len(words[-1]) >= 30):
            words.append("")
        words[-1] += letter
    return words


def _wide(letter: str) -> bool:
    return "\u2e80" <= letter <= "\ud7ff" or "\uf900" <= letter <= "\ufaff" or "\uff00" <= letter <= "\uffef"


def font_for(text: str) -> ImageFont.FreeTypeFont:
    """A plain font, or one with Chinese, Japanese and Korean letters where the text has some and the machine too."""
    return _font(any(_wide(letter) for letter in text))


@cache
def _font(wide: bool) -> ImageFont.FreeTypeFont:
    for name in CJK_FONTS if wide else ():
        try:
            return ImageFont.truetype(font_manager.findfont(name, fallback_to_default=False), 14)
        except ValueError:  # not on this machine
            continue
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 14)


def _write(sheet: Image.Image, lines: list[str], facts: str, left: int, top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), font_for("".join(lines))
    for number, line in enumerate(lines, 1):
        draw.text((left, top + LINE * number - 5), line, fill=INK, font=font, anchor="ls")
    draw.text((left, top + LINE * (len(lines) + 1)), facts, fill=FAINT, font=font_for(facts), anchor="ls")
