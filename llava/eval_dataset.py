"""What an evaluation asks about: images, texts that fit them, and what is known to be true of them.

.jsonl or .csv: image, text, and what there is of reference, keywords, traits, group;  or an AniPersonaCaps folder
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.text.json_text import parse_json
from llava.request_io import read_rows


class EvaluationSample(NamedTuple):
    key: str
    image: str
    text: str  # that fits the image and is scored against it
    references: tuple[str, ...]  # good descriptions
    keywords: tuple[str, ...]  # the most important first
    traits: dict[str, str] | None  # None: those that the references say
    group: str


def read_samples(data: str | Path) -> tuple[list[EvaluationSample], dict[str, str]]:
    """-> samples, {what was left out: why}. Image paths begin at the file's folder."""
    path = Path(data) / "metadata.jsonl" if Path(data).is_dir() else Path(data)
    samples: list[EvaluationSample] = []
    skipped: dict[str, str] = {}
    for number, row in enumerate(read_rows(path), 1):
        where = f"{path} row {number}"
        try:
            samples.append(_sample(where, row, path.parent))
        except ValueError as error:
            skipped[where] = str(error)
    if not samples:
        where, why = next(iter(skipped.items()))
        raise ValueError(f"{path}: not one usable sample; {where}: {why}")
    return samples, skipped


def _sample(where: str, row: dict[str, Any], root: Path) -> EvaluationSample:
    if "error" in row:
        raise ValueError(row["error"])
    image = next((row[name] for name in ("image", "file_name", "image_path") if row.get(name)), None)
    if not image or not (root / str(image)).is_file():
        raise ValueError(f"no such image: {root / str(image)}" if image else "names no image")
    persona = " ".join(str(row.get(name) or "").strip() for name in ("appearance", "personality")).strip()
    references = _list(row.get("reference") or row.get("references") or row.get("caption") or persona)
    text = str(row.get("text") or (references[0] if references else "")).strip()
    if not text:
        raise ValueError("no text: expected a field text, reference, or appearance and personality")
    traits = row.get("traits")
    if traits is not None and not isinstance(traits, dict):
        raise ValueError("traits: expected names and values")
    group = str(row.get("group") or row.get("title") or "all")
    keywords = tuple(_list(row.get("keywords"), comma=True))
    return EvaluationSample(
        str(row.get("id") or where), str(root / str(image)), text, tuple(references), keywords, traits, group
    )


def _list(value: Any, comma: bool = False) -> list[str]:
    """A text or a list of texts; in a table a JSON list, or keywords between commas."""
    if isinstance(value, str) and value.startswith("["):
        value = parse_json(value)
    if isinstance(value, str):
        value = value.split(",") if comma else [value]
    return [clean for one in value or () if (clean := " ".join(str(one).split()))]


def draw_negatives(samples: list[EvaluationSample], count: int, seed: int) -> list[list[str]]:
    """For each sample `count` texts of other images with other words, the same at every batch size."""
    drawn = []
    for place, sample in enumerate(samples):
        others = sorted({one.text for one in samples if one.image != sample.image and one.text != sample.text})
        if len(others) < count:
            raise ValueError(
                f"--num_negatives {count}: {sample.key} finds {len(others)} other texts of other images; "
                "give more samples or a smaller number"
            )
        random = np.random.default_rng([seed, place])
        drawn.append([others[one] for one in random.permutation(len(others))[:count]])
    return drawn
