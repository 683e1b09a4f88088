"""Tables of questions about images to batches.

CSV rows -> samples -> image (B, 3, S, S) uint8, or patches (B, N, V) and pooled (B, P) of the feature cache;
input_ids, attention_mask, labels (B, T); question_ids, question_mask (B, W); style_ids (B,) -1 = not known;
applies (B,) 1 = the style losses count here

Another data set: a function that makes samples of rows, with its name in DATASETS.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from blip2_gated.feature_cache import FeatureCache
from blip2_gated.model import squeeze
from blip2_gated.prompts import PromptEncoder
from blip2_gated.style_vocabulary import StyleVocabulary, in_words
from common.cli.settings import unknown_name
from common.images.cache import ImageCache
from common.images.transforms import SampleKey


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; '' where it has none."""

    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    style: str = "style"
    type: str = ""
    style_type: str = "school"  # artquest alone


@dataclass(frozen=True)
class Sample:
    number: int  # of the row in its table, from 0
    image: str  # as the table names it
    question: str
    answer: str
    style: str  # label, '' = not known
    type: str  # kind of question


def csv_samples(rows: list[dict[str, str]], columns: Columns) -> list[Sample]:
    """One sample a row. Without a column of types a question is of type 'style' where its answer names the style."""

    def sample(number: int, row: dict[str, str]) -> Sample:
        style = row[columns.style] if columns.style else ""
        about = "style" if style and in_words(style) in in_words(row[columns.answer]) else "other"
        kind = row[columns.type] if columns.type else about
        return Sample(number, row[columns.image], row[columns.question], row[columns.answer], style, kind)

    return [sample(number, row) for number, row in enumerate(rows)]


def artquest_samples(rows: list[dict[str, str]], columns: Columns) -> list[Sample]:
    """ArtQuest (Bleidt et al. 2024) asks up to six types of question about a painting: artist, school, timeframe, type,
    technique, title. It has no column of styles.

    What comes nearest is the school (Italian, Dutch, ...): a painting's style is the answer to its question of
    `style_type`, by default 'school'. 'timeframe' would be another choice; artists and titles are too many classes.
    """
    kinds = {row[columns.type].lower() for row in rows}
    if columns.style_type not in kinds:
        raise ValueError(unknown_name(columns.style_type, sorted(kinds), "--data.style_type"))
    styles = {
        row[columns.image]: row[columns.answer].lower()
        for row in rows
        if row[columns.type].lower() == columns.style_type
    }
    return [
        Sample(
            number,
            row[columns.image],
            row[columns.question],
            row[columns.answer],
            styles.get(row[columns.image], ""),
            row[columns.type].lower(),
        )
        for number, row in enumerate(rows)
    ]


DATASETS: dict[str, Callable[[list[dict[str, str]], Columns], list[Sample]]] = {
    "csv": csv_samples,
    "artquest": artquest_samples,
}


def read_samples(
    table: str | Path, image_root: str | Path, dataset_name: str, columns: Columns
) -> tuple[list[Sample], dict[str, str]]:
    """-> samples whose image exists and whose question and answer say something, {the other rows: why}."""
    if dataset_name not in DATASETS:
        raise ValueError(unknown_name(dataset_name, list(DATASETS), "--data.dataset_name"))
    rows = read_rows(Path(table), columns)
    good, skipped, there = [], {}, {}
    for sample in DATASETS[dataset_name](rows, columns):
        if sample.image not in there:  # asked once per image, not once per question
            path = Path(image_root) / sample.image
            there[sample.image] = "" if path.is_file() else f"{path}: no such file"
        empty = not sample.question.strip() or not sample.answer.strip()
        if problem := "an empty question or answer" if empty else there[sample.image]:
            skipped[f"{table}:{sample.number + 2}"] = problem
        else:
            good.append(sample)
    if not good:
        raise ValueError(f"{table}: no usable sample; the first: {next(iter(skipped.values()), 'it has no rows')}")
    return good, skipped


def read_rows(table: Path, columns: Columns) -> list[dict[str, str]]:
    if not table.is_file():
        raise FileNotFoundError(f"{table}: no such file; expected a CSV table of questions (--data.root, --data.*_csv)")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = [{name: row[name] or "" for name in names} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: cannot be read as CSV ({error})") from None
    for field in ("image", "question", "answer", "style", "type"):
        name = getattr(columns, field)
        if name and name not in names:
            raise ValueError(
                f"{table}: {unknown_name(name, names, 'column')} (it has {', '.join(names)}; --data.{field}_column)"
            )
    return rows


def image_paths(samples: list[Sample], image_root: str | Path) -> list[Path]:
    """Every image once, in the order of its first question."""
    return [Path(image_root) / name for name in dict.fromkeys(sample.image for sample in samples)]


class VqaDataset(Dataset):
    """dataset[index] or dataset[SampleKey(...)] -> one sample; `collate` pads a batch. `cut`: texts that were too long.

    images: pixels or features by path, `image_root` / the sample's image.
    """

    def __init__(
        self,
        samples: list[Sample],
        images: ImageCache | FeatureCache,
        image_size: int,
        prompts: PromptEncoder,
        styles: StyleVocabulary,
        style_where: str = "answers",
        image_root: Path = Path(),
    ):
        if style_where not in ("answers", "all"):
            raise ValueError(f"--loss.style_where {style_where}: expected answers or all")
        self.samples, self.images, self.image_size, self.prompts = samples, images, image_size, prompts
        self.image_root = image_root
        self.encoded = [prompts.encode(sample.question, sample.answer) for sample in samples]
        self.cut = sum(one.cut for one in self.encoded)
        self.style_ids = [styles.numbers.get(sample.style, -1) for sample in samples]
        self.applies = [style_where == "all" or bool(styles.named_in(sample.answer)) for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        index = key.index if isinstance(key, SampleKey) else key
        source = self.images[self.image_root / self.samples[index].image]
        if isinstance(self.images, FeatureCache):
            inputs = dict(zip(("patches", "pooled"), source))
        else:
            inputs = {"image": squeeze(source, self.image_size)}
        return {
            **inputs,
            "encoded": self.encoded[index],
            "style_ids": torch.tensor(self.style_ids[index]),
            "applies": torch.tensor(self.applies[index]),
        }

    def file_of(self, index: int) -> str:
        """Which image, and which row of the table asks about it."""
        return f"{self.samples[index].image} (row {self.samples[index].number + 2})"

    def collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        stacked = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "encoded"}
        return {**stacked, **self.prompts.collate([item["encoded"] for item in items])}
