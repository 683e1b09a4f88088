"""Contact sheets: pictures with captions, in rows below headings.

{heading: [Cell(pictures, caption, note)]} -> a heading, then its cells, row by row -> PNG
"""

from functools import cache
from itertools import accumulate, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from common.images.transforms import square
from common.text.files import write_atomically

GAP, FONT, LINE = 12, 16, 24  # pixels: three pictures in a row are legible on a phone
HEADING_LINES, CAPTION_LINES, NOTE_LINES = 3, 5, 4  # at most
INK, GREY = (32, 33, 36), (110, 114, 120)
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
    """Pictures above each other; below them a caption of CAPTION_LINES, and a note of NOTE_LINES in grey."""

    pictures: list[Image.Image]
    caption: str = ""
    note: str = ""

    def lines(self, width: int) -> tuple[list[str], list[str]]:
        """Caption and note, wrapped at so many pixels."""
        return (wrap(self.caption, width, CAPTION_LINES), wrap(self.note, width, NOTE_LINES) if self.note else [])


def contact_sheet(sections: dict[str, list[Cell]], columns: int = 3, side: int = 200) -> Image.Image:
    """sections: heading (may be '') -> cells. columns: cells in a row. side: pixels of a picture."""
    rows: list[str | list[Cell]] = []
    for heading, cells in sections.items():
        rows += [heading] if heading else []
        rows += [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = max((len(row) for row in rows if not isinstance(row, str)), default=columns) * (side + GAP) + GAP
    headings = {row: wrap(row, width - 2 * GAP, HEADING_LINES) for row in rows if isinstance(row, str)}
    heights = [
        LINE * (1 + len(headings[row])) if isinstance(row, str) else max(_height(cell, side) for cell in row)
        for row in rows
    ]
    sheet = Image.new("RGB", (width, sum(heights) + GAP), "white")
    for row, top in zip(rows, accumulate(heights, initial=GAP)):
        if isinstance(row, str):
            draw_text(sheet, headings[row], [], GAP, top + GAP // 2)
            continue
        for left, cell in zip(count(GAP, side + GAP), row):
            for number, picture in enumerate(cell.pictures):
                corner = (left, top + number * (side + GAP // 2))
                sheet.paste(Image.fromarray(square(np.asarray(picture), side)), corner)
            below = top + len(cell.pictures) * (side + GAP // 2)
            draw_text(sheet, *cell.lines(side), left, below)
    return sheet


def _height(cell: Cell, side: int) -> int:
    return len(cell.pictures) * (side + GAP // 2) + LINE * sum(map(len, cell.lines(side))) + 2 * GAP


def save_picture(path: str | Path, picture: Image.Image) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, durable=False) as file:
        picture.save(file, "PNG")


def draw_text(sheet: Image.Image, lines: list[str], notes: list[str], left: int, top: int) -> None:
    """Lines below each other, and notes in grey as the last."""
    draw = ImageDraw.Draw(sheet)
    for group, colour in ((lines, INK), (notes, GREY)):
        font = font_for("".join(group))
        for line in group:
            top += LINE
            draw.text((left, top - 5), line, fill=colour, font=font, anchor="ls")


def wrap(text: str, width: int, max_lines: int | None = None) -> list[str]:
    """Lines of at most `width` pixels: broken at spaces, and anywhere in scripts without them. The last of max_lines
    ends in an ellipsis if the text is longer."""
    font, lines = font_for(text), [""]
    for word in _words(" ".join(text.split())):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word if lines[-1] else word.lstrip()
        if max_lines and len(lines) > max_lines + 1:
            break
    lines = [line.rstrip() for line in lines]
    if max_lines and len(lines) > max_lines:
        lines[max_lines - 1 :] = [_cut(" ".join(lines[max_lines - 1 : max_lines + 1]), width)]
    return lines


def _cut(text: str, width: int) -> str:
    """As much of a text as fits into `width` pixels, with an ellipsis if that is not all."""
    font = font_for(text)
    if font.getlength(text) <= width:
        return text
    length = next((end for end in range(len(text), 0, -1) if font.getlength(text[:end] + "…") <= width), 0)
    return text[:length].rstrip(" ,.，。") + "…"


def _words(text: str) -> list[str]:
    """'a b 猫和' -> 'a ', 'b ', '猫', '和'; words of more than 30 letters are split."""
    words = [""]
    for letter in text:
        if words[-1] and (words[-1][-1] == " " or _wide(letter) or _wide(words[-1][-1]) or len(words[-1]) >= 30):
            words.append("")
        words[-1] += letter
    return words


def _wide(letter: str) -> bool:
    return "\u2e80" <= letter <= "\ud7ff" or "\uf900" <= letter <= "\ufaff" or "\uff00" <= letter <= "\uffef"


def font_for(text: str) -> ImageFont.FreeTypeFont:
    """A plain font, or one with Chinese, Japanese and Korean characters if the text has some and the font exists."""
    return _font(any(_wide(letter) for letter in text))


@cache
def _font(wide: bool) -> ImageFont.FreeTypeFont:
    for name in CJK_FONTS if wide else ():
        try:
            return ImageFont.truetype(font_manager.findfont(name, fallback_to_default=False), FONT)
        except ValueError:  # not on this machine
            continue
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), FONT)
