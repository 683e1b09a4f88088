"""Evaluation samples: images with matching texts, texts of other images, and what is known of each.

.jsonl or .csv: image, text, and optionally negatives, reference, keywords, traits, group;  or an AniPersonaCaps folder
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.text.files import parse_json
from common.text.tables import check_record, read_records
from common.text.values import file_name_of, text_of
from llava.request_io import IMAGE_KEYS

KEYWORD_SEPARATORS = "[;,；，、]"


class EvaluationSample(NamedTuple):
    key: str
    image: str
    text: str  # matches the image
    references: tuple[str, ...]  # good descriptions
    keywords: tuple[str, ...]  # in order of importance
    traits: dict[str, str] | None  # None: those in the references
    group: str
    negatives: tuple[str, ...] = ()  # texts that do not fit the image


def read_samples(data: str | Path) -> tuple[list[EvaluationSample], dict[str, str]]:
    """-> samples, {skipped record: reason}. Image paths are relative to the file's folder."""
    path = Path(data) / "metadata.jsonl" if Path(data).is_dir() else Path(data)
    samples: list[EvaluationSample] = []
    skipped: dict[str, str] = {}
    for key, record in read_records(path, "--data"):
        try:
            samples.append(_parse_record(key, record, path.parent))
        except ValueError as error:
            skipped[key] = str(error)
    if not samples:
        key, reason = next(iter(skipped.items()), (path, "the file is empty"))
        raise ValueError(f"{path}: no usable sample; {key}: {reason}")
    return samples, skipped


def _parse_record(key: str, record: Any, root: Path) -> EvaluationSample:
    check_record(record)
    name = next((record[name] for name in IMAGE_KEYS if record.get(name)), None)
    if not name:
        raise ValueError("names no image")
    image = root / file_name_of(name, root)
    if not os.path.isfile(image):  # noqa: PTH113, Path.is_file() raises where a name is too long
        raise ValueError(f"no such image: {image}")
    persona = " ".join(_text(record, name) for name in ("appearance", "personality")).strip()
    references = text_list(record.get("reference") or record.get("references") or record.get("caption") or persona)
    text = _text(record, "text") or (references[0] if references else "")
    if not text:
        raise ValueError("no text: expected a field text, reference, or appearance and personality")
    traits = record.get("traits")
    if traits is not None and not (isinstance(traits, dict) and all(isinstance(one, str) for one in traits.values())):
        raise ValueError("traits: expected names and values, both texts")
    return EvaluationSample(
        key=str(record.get("id") or key),
        image=str(image),
        text=text,
        references=tuple(references),
        keywords=tuple(text_list(record.get("keywords"), KEYWORD_SEPARATORS)),
        traits=traits,
        group=str(record.get("group") or record.get("title") or "all"),
        negatives=tuple(text_list(record.get("negatives"))),
    )


def _text(record: dict[str, Any], name: str) -> str:
    """A field, '' where it is absent."""
    value = record.get(name)
    return text_of("" if value is None else value).strip()


def text_list(value: Any, separators: str = "") -> list[str]:
    """A list of texts, one text, or in a table a JSON list or texts between separators (a pattern)."""
    if isinstance(value, str) and value.startswith("["):
        value = parse_json(value)
    if isinstance(value, str):
        value = re.split(separators, value) if separators else [value]
    if not isinstance(value, list | type(None)):
        raise ValueError(f"expected a text or a list of texts, got {repr(value)[:40]}")
    return [text for item in value or () if (text := " ".join(text_of(item).split()))]


def draw_negatives(samples: list[EvaluationSample], count: int, seed: int) -> list[EvaluationSample]:
    """The samples, each with its own negatives or `count` different texts of other images, the same at every batch
    size."""
    with_negatives = []
    for number, sample in enumerate(samples):
        if sample.negatives:
            with_negatives.append(sample)
            continue
        others = sorted({other.text for other in samples if other.image != sample.image} - {sample.text})
        if len(others) < count:
            raise ValueError(
                f"--num_negatives {count}: {sample.key} has {len(others)} other texts of other images; "
                "give more samples or a smaller number"
            )
        order = np.random.default_rng([seed, number]).permutation(len(others))[:count]
        with_negatives.append(sample._replace(negatives=tuple(others[index] for index in order)))
    return with_negatives
