"""A grid of drawings, STYLE/CONTENT_img.png, in four parts: seen and unseen contents, in seen and unseen styles.

Styles of one publisher share their shapes, so they are held out together: each seed holds out others.
"""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

HELD_OUT = (("openmoji_color", "openmoji_black"), ("fluent_flat", "fluent_3d"), ("twemoji", "noto"))  # seed 0, 1, 2
UNSEEN_SHARE = 5  # one content in so many
PARTS = ("training", "unseen styles", "unseen contents", "unseen both")


@dataclass(frozen=True)
class Drawing:
    """fields: the row of contents.csv: name_en, name_zh, keywords_en, keywords_zh (separated by "; "), group, ..."""

    path: Path
    content: str
    style: str
    fields: dict[str, str]


def split_grid(folder: Path, seed: int) -> dict[str, list[Drawing]]:
    """folder: of contents.csv and the styles -> drawings of each of PARTS, in a fixed order."""
    with (folder / "contents.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["content_id"]: row for row in csv.DictReader(file)}
    styles = HELD_OUT[seed % len(HELD_OUT)]
    contents = set(random.Random(seed).sample(sorted(rows), len(rows) // UNSEEN_SHARE))
    parts: dict[str, list[Drawing]] = {part: [] for part in PARTS}
    for path in sorted(folder.glob("*/*_img.png")):
        content, style = path.name.removesuffix("_img.png"), path.parent.name
        part = PARTS[(style in styles) + 2 * (content in contents)]
        parts[part].append(Drawing(path, content, style, rows[content]))
    return parts
