"""Data set of questions about images: CSV tables to batches.

CSV rows -> samples -> image (B, 3, S, S) uint8, or patches (B, N, V) and pooled (B, P) of the feature cache;
input_ids, attention_mask, labels (B, T); question_ids, question_mask (B, W); style_ids (B,) -1 = unknown;
applies (B,) 1 = the style losses apply

Another data set: a function, or a Dataset, that makes samples of a table's rows, and its name in DATASETS.
"""

import functools
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset, default_collate

from blip2_gated.feature_cache import FeatureCache, cache_features
from blip2_gated.images import squeeze
from blip2_gated.model import Blip2OPTGated
from blip2_gated.prompts import PromptEncoder
from blip2_gated.style_vocabulary import StyleVocabulary, in_words
from common.cli.names import unknown_name
from common.cli.paths import find_from_root
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.transforms import SampleKey
from common.samples.layouts import create_sample_dataset
from common.samples.sample_folder import is_vacant
from common.text.tables import read_table
from common.training.skip_log import check_skip_rate, report_skipped

DEFAULT_ROOT = "./data/vqa"  # data.root as configs/default.yaml comes
DEMO_IMAGES = 1000  # drawn by --demo


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; '' for one it does not have."""

    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    style: str = "style"
    type: str = ""
    style_type: str = "school"  # artquest only: the question type whose answer is the style


@dataclass(frozen=True)
class VqaSample:
    number: int  # of the row in its table, from 0
    image: str  # as in the table
    question: str
    answer: str
    style: str = ""  # label, '' = unknown
    type: str = "other"  # of the question
    question_id: int | str | None = None  # of the table, for the VQA evaluation; None: its number
    path: Path = Path()  # of the image; read_samples fills it in


def csv_samples(rows: list[dict[str, str]], columns: Columns) -> list[VqaSample]:
    """One sample per row. Without a column of types a question is of type 'style' if its answer names the style."""

    def sample(number: int, row: dict[str, str]) -> VqaSample:
        style, answer = (row[column] if column else "" for column in (columns.style, columns.answer))
        names_style, question_id = style and in_words(style) in in_words(answer), row.get("question_id")
        return VqaSample(
            number,
            row[columns.image],
            row[columns.question],
            answer,
            style,
            type=row[columns.type] if columns.type else "style" if names_style else "other",
            question_id=int(question_id) if question_id and question_id.isdecimal() else question_id or None,
        )

    return [sample(number, row) for number, row in enumerate(rows)]


def artquest_samples(rows: list[dict[str, str]], columns: Columns) -> list[VqaSample]:
    """ArtQuest (Bleidt et al. 2024) has up to six types of question per painting: artist, school, timeframe, type,
    technique, title. It has no column of styles.

    The nearest to a style is the school (Italian, Dutch, ...): a painting's style is the answer to its question of
    `columns.style_type`, by default 'school'. 'timeframe' is another choice; artists and titles are too many classes.
    """
    rows = [{**row, columns.type: row[columns.type].lower()} for row in rows]
    types = {row[columns.type] for row in rows}
    if columns.style_type not in types:
        raise ValueError(unknown_name(columns.style_type, sorted(types), "--data.style_type"))
    samples = csv_samples(rows, replace(columns, style=""))
    styles = {sample.image: sample.answer.lower() for sample in samples if sample.type == columns.style_type}
    return [replace(sample, style=styles.get(sample.image, "")) for sample in samples]


# rows of a table, names of its columns -> a list of samples, or a Dataset of samples or {"image": its name in the
# table, "question": ..., "answer": ..., "style": ...}
DATASETS: dict[str, Callable[[list[dict[str, str]], Columns], Any]] = {"csv": csv_samples, "artquest": artquest_samples}


def read_samples(
    table: str | Path, image_root: str | Path, dataset_name: str, columns: Columns
) -> tuple[list[VqaSample], dict[str, str]]:
    """-> samples with an image file, a question and, if the table has them, an answer, {row: reason} of the others."""
    if dataset_name not in DATASETS:
        raise ValueError(
            f"{unknown_name(dataset_name, list(DATASETS), '--data.dataset_name')} (known: {', '.join(DATASETS)}; "
            "another one goes into DATASETS of blip2_gated/dataset.py)"
        )
    flags = {
        getattr(columns, field): f"--data.{field}_column"
        for field in ("image", "question", "answer", "style", "type")
        if getattr(columns, field)
    }
    _, rows = read_table(Path(table), flags, "--data.root, --data.*_csv")
    is_file = functools.cache(Path.is_file)  # one look per image, not one per question
    samples, skipped = [], {}
    source = DATASETS[dataset_name](rows, columns)
    for number in range(len(source)):
        item = source[number]
        sample = item if isinstance(item, VqaSample) else VqaSample(**{"number": number, **item})
        path = Path(image_root, sample.image)
        if not sample.question.strip() or (columns.answer and not sample.answer.strip()):
            skipped[f"{table}:{sample.number + 2}"] = "an empty question or answer"
        elif not is_file(path):
            skipped[f"{table}:{sample.number + 2}"] = f"{path}: no such file"
        else:
            samples.append(replace(sample, path=path))
    if not samples:
        raise ValueError(f"{table}: no usable sample; the first: {next(iter(skipped.values()), 'it has no rows')}")
    return samples, skipped


class VqaDataset(Dataset):
    """dataset[index] or dataset[SampleKey(...)] -> one sample; `collate` pads a batch.

    images: pixels or features by path. truncated: number of texts that were too long.
    """

    def __init__(
        self,
        samples: list[VqaSample],
        images: ImageCache | FeatureCache,
        image_size: int,
        prompts: PromptEncoder,
        styles: StyleVocabulary,
        style_where: str = "answers",
    ):
        self.samples, self.images, self.image_size, self.prompts = samples, images, image_size, prompts
        self.encoded = [prompts.encode(sample.question, sample.answer) for sample in samples]
        self.truncated = sum(encoded.truncated for encoded in self.encoded)
        self.style_ids = [styles.class_ids.get(sample.style, -1) for sample in samples]
        self.applies = [style_where == "all" or bool(styles.named_in(sample.answer)) for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        index = key.index if isinstance(key, SampleKey) else key
        return {
            **self.image_inputs(self.samples[index]),
            "encoded": self.encoded[index],
            "style_ids": torch.tensor(self.style_ids[index]),
            "applies": torch.tensor(self.applies[index]),
        }

    def image_inputs(self, sample: VqaSample) -> dict[str, torch.Tensor]:
        """-> image (3, S, S), or patches (N, V) and, with an EfficientNet, pooled (P,)."""
        if isinstance(self.images, FeatureCache):
            return self.images[sample.path]
        return {"image": squeeze(self.images[sample.path], self.image_size)}

    def file_of(self, index: int) -> str:
        """The sample's image, and its row in the table."""
        return f"{self.samples[index].image} (row {self.samples[index].number + 2})"

    def collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts = self.prompts.collate([item.pop("encoded") for item in items])
        return default_collate(items) | texts


def read_splits(
    settings: Namespace, names: Sequence[str], is_main: bool = True
) -> tuple[dict[str, list[VqaSample]], dict[str, str]]:
    """-> {split: samples}, {skipped row: reason}. --demo draws its data into a folder that is missing or empty."""
    root = Path(find_from_root(settings.data_root))
    image_root = Path(find_from_root(settings.data_image_root) or root)
    if settings.demo and is_main and is_vacant(root):
        print(f"{root}: nothing there yet; drawing {DEMO_IMAGES} sample pictures with questions into it")
        create_sample_dataset(root, DEMO_IMAGES, layout="vqa")
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder, with {settings.data_train_csv} in it (--data.root); to try drawn pictures: --demo"
        )
    if not image_root.is_dir():
        raise FileNotFoundError(f"{image_root}: no such folder of images (--data.image_root)")
    columns = Columns(
        settings.data_image_column,
        settings.data_question_column,
        settings.data_answer_column,
        settings.data_style_column,
        settings.data_type_column,
        settings.data_style_type,
    )
    splits, skipped = {}, {}
    for name in names:
        table = root / getattr(settings, f"data_{name}_csv")
        splits[name], skipped_rows = read_samples(table, image_root, settings.data_dataset_name, columns)
        skipped |= skipped_rows
    return splits, skipped


def build_datasets(
    settings: Namespace,
    splits: dict[str, list[VqaSample]],
    skipped: dict[str, str],
    model: Blip2OPTGated,
    accelerator: Accelerator,
) -> tuple[dict[str, VqaDataset], dict[str, str]]:
    """Decode every image once, skip questions about unreadable ones, cache features if set -> {split: data set}."""
    cache_dir, quiet = Path(settings.data_cache_dir), not accelerator.is_main_process
    skipped, total, datasets = dict(skipped), len(skipped) + sum(map(len, splits.values())), {}
    for name, samples in splits.items():
        paths = list(dict.fromkeys(sample.path for sample in samples))
        images = ImageCache(paths, round(CACHE_SCALE * model.image_size), cache_dir / "images", quiet=quiet)
        skipped |= {
            f"{name}:{sample.number + 2}": images.skipped[str(sample.path)]
            for sample in samples
            if str(sample.path) in images.skipped
        }
        datasets[name] = VqaDataset(
            [sample for sample in samples if str(sample.path) not in images.skipped],
            images,
            model.image_size,
            model.prompts,
            model.styles,
            settings.loss_style_where,
        )
    if not quiet:
        report_skipped(skipped)
    check_skip_rate(skipped, total, settings.data_max_skipped, settings.data_root)
    if settings.training_cache_features:
        model.to(accelerator.device)
        for dataset in datasets.values():
            paths = list(dict.fromkeys(sample.path for sample in dataset.samples))
            dataset.images = cache_features(
                model, dataset.images, paths, cache_dir / "features", accelerator.device, quiet=quiet
            )
    return datasets, skipped
