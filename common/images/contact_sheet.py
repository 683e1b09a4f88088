"""Pictures with words below them, many on one sheet.

{heading: [Cell(pictures, text, facts)]} -> a heading, then its cells, row by row -> PNG
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from common.images.transforms import square
from common.text.files import write_atomically

GAP, LINE = 12, 21  # pixels
INK, FAINT = (32, 33, 36), (110, 114, 120)
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
)


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
            draw_text(sheet, [_cut(row, sheet.width - 2 * GAP)], "", GAP, top + GAP // 2)
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
    draw_text(sheet, lines, _cut(cell.facts, side), left, top)


def save_picture(path: str | Path, picture: Image.Image) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, durable=False) as file:
        picture.save(file, "PNG")


def draw_text(sheet: Image.Image, lines: list[str], facts: str, left: int, top: int) -> None:
    """Lines below each other, and numbers in a paler last one."""
    draw, font = ImageDraw.Draw(sheet), font_for("".join(lines))
    for number, line in enumerate(lines, 1):
        draw.text((left, top + LINE * number - 5), line, fill=INK, font=font, anchor="ls")
    draw.text((left, top + LINE * (len(lines) + 1)), facts, fill=FAINT, font=font_for(facts), anchor="ls")


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
