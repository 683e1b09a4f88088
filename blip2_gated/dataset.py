"""Data set of questions about images: tables to batches.

tables -> samples (vqa_tables.py) -> image (B, 3, S, S) uint8; patches (B, N, V) and pooled (B, P) as far as they are
cached; input_ids, attention_mask, labels (B, T); question_ids, question_mask (B, W); style_ids (B,) -1 = unknown;
applies (B,) 1 = the style losses apply

Another data set: a function, or a Dataset, that makes samples of a table's rows, and its name in DATASETS.
"""

import functools
import os
import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import default_collate

from blip2_gated.feature_cache import FeatureCache, cache_features
from blip2_gated.images import squeeze
from blip2_gated.model import Blip2OPTGated
from blip2_gated.prompts import PromptEncoder
from blip2_gated.style_vocabulary import StyleVocabulary
from blip2_gated.vqa_tables import Columns, Record, VqaSample, artquest_samples, csv_samples, read_vqa_records
from common.cli.names import unknown_name
from common.cli.paths import find_from_root
from common.images.cache import CACHE_SCALE, CHECKED, THREADS, ImageCache
from common.images.io import list_images
from common.images.transforms import SampleKey
from common.samples.layouts import create_sample_dataset
from common.samples.sample_folder import is_vacant
from common.text.values import file_name_of
from common.training.skip_log import SkipLog, check_skip_rate, report_skipped
from common.training.skipping_dataset import SkippingDataset

DEFAULT_ROOT = "./data/vqa"  # data.root of configs/default.yaml
DEMO_IMAGES = 1000  # drawn by --demo
DEMO_SEED = 1  # of the scenes: other ones than those that train.py --demo draws for the style encoder


# rows of a table, names of its columns -> a list of samples, or a Dataset of samples or {"image": its name in the
# table, "question": ..., "answer": ..., "style": ...}; a ValueError in place of a sample skips it
DATASETS: dict[str, Callable[[list[Record], Columns], Any]] = {"csv": csv_samples, "artquest": artquest_samples}


def parse_samples(table: Path, dataset_name: str, columns: Columns) -> list[tuple[str, VqaSample | ValueError]]:
    """-> file and line, sample or what is wrong with it, for every row of a table; images are not looked for."""
    if dataset_name not in DATASETS:
        raise ValueError(
            f"{unknown_name(dataset_name, list(DATASETS), '--data.dataset_name')} (known: {', '.join(DATASETS)}; "
            "another one goes into DATASETS of blip2_gated/dataset.py)"
        )
    places, records = read_vqa_records(table, columns, "--data.root, --data.*_csv")
    samples: list[tuple[str, VqaSample | ValueError]] = [
        (place, record) for place, record in zip(places, records) if isinstance(record, ValueError)
    ]
    numbers = [number for number, record in enumerate(records) if not isinstance(record, ValueError)]
    source = DATASETS[dataset_name]([record for record in records if not isinstance(record, ValueError)], columns)
    for index in range(len(source)):
        item = source[index]
        sample = VqaSample(**{"number": index, **item}) if isinstance(item, dict) else item
        row = index if isinstance(sample, ValueError) else sample.number
        number = numbers[row] if row < len(numbers) else row
        place = places[number] if number < len(places) else f"{table}:sample {number}"
        is_numbered = isinstance(sample, ValueError) or sample.number == number
        samples.append((place, sample if is_numbered else replace(sample, number=number)))
    return samples


def read_samples(
    table: str | Path, image_root: str | Path, dataset_name: str, columns: Columns
) -> tuple[list[VqaSample], dict[str, str]]:
    """-> samples with an image file, a question and, if the table has them, an answer, {row: reason} of the others."""
    find_image = functools.cache(ImageFinder(Path(image_root)))  # one look per image, not one per question
    samples, skipped = [], {}
    for place, sample in parse_samples(Path(table), dataset_name, columns):
        try:
            if isinstance(sample, ValueError):
                raise sample
            if not sample.question.strip() or (columns.answer and not sample.answer.strip()):
                raise ValueError("an empty question or answer")
            if re.search(r"[\r\n]", sample.answer.strip()):
                raise ValueError("an answer with a line break, which ends BLIP-2's answers")
            samples.append(replace(sample, path=find_image(sample.image), place=place))
        except ValueError as error:
            skipped[place] = str(error)
    if not samples:
        raise ValueError(f"{table}: no usable sample; the first: {next(iter(skipped.values()), 'it has no rows')}")
    return samples, skipped


class ImageFinder:
    """finder(name) -> the file that a table names, below `root` or by its full path; ValueError if there is none.

    A name without an ending is the id of an image: of 458752 and train2014/COCO_train2014_000000458752.jpg, too.
    """

    def __init__(self, root: Path):
        self.root = root

    def __call__(self, name: str) -> Path:
        path = Path(self.root, file_name_of(name, self.root))
        if not name.strip():
            raise ValueError("names no image")
        if os.path.isfile(path):  # noqa: PTH113, Path.is_file() raises where a name is too long
            return path
        found = self._by_id[name.zfill(12) if name.isdecimal() else name] if not path.suffix else []
        if not found:
            raise ValueError(f"{path}: no such file")
        if len(found) > 1:
            raise ValueError(f"{name}: the id of several images, {found[0]} and {found[1]}")
        return found[0]

    @functools.cached_property
    def _by_id(self) -> dict[str, list[Path]]:
        by_id = defaultdict(list)
        for path in list_images(self.root):
            number = re.search(r"(?:^|_)(\d+)$", path.stem)
            for name in {path.stem, number[1].zfill(12) if number else path.stem}:
                by_id[name].append(path)
        return by_id


class VqaDataset(SkippingDataset):
    """dataset[index] or dataset[SampleKey(...)] -> one sample; `collate` pads a batch.

    images: pixels by path. features: those that are cached, by path. In place of a sample whose image cannot be read,
    or which `prompts` cannot encode, comes the next one; `read` is without that. skipped: names them, by file and line
    of their tables.
    """

    def __init__(
        self,
        samples: list[VqaSample],
        images: ImageCache,
        image_size: int,
        prompts: PromptEncoder,
        styles: StyleVocabulary,
        style_where: str = "answers",
    ):
        self.samples, self.images, self.image_size, self.prompts = samples, images, image_size, prompts
        self.features: FeatureCache | None = None
        self.styles, self.style_where, self.skipped = styles, style_where, SkipLog()

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, key: int | SampleKey) -> dict[str, Any] | None:
        sample = self.samples[key.index if isinstance(key, SampleKey) else key]
        try:
            applies = self.style_where == "all" or bool(self.styles.named_in(sample.answer))
            return {
                **self.image_inputs(sample),
                "encoded": self.prompts.encode(sample.question, sample.answer),
                "style_ids": torch.tensor(self.styles.class_ids.get(sample.style, -1)),
                "applies": torch.tensor(applies),
            }
        except (ValueError, OSError) as error:
            self.skipped.add(sample.place, error, len(self))
            return None

    def drop_broken(self) -> None:
        """Read every sample once, and keep those that can be read: evaluation has no substitutes."""
        with ThreadPoolExecutor(THREADS) as pool:
            is_good = list(pool.map(lambda index: self.read(index) is not None, range(len(self))))
        self.samples = [sample for sample, good in zip(self.samples, is_good) if good]
        if not self.samples:
            raise ValueError(f"no usable sample; the first: {': '.join(next(iter(self.skipped.skipped.items())))}")

    def count_truncated(self, count: int = 1000) -> str:
        """How many texts are too long, of a few evenly spread samples."""
        count = min(len(self), count)
        chosen = [self.samples[number * len(self) // count] for number in range(count)]
        truncated = 0
        for sample in chosen:
            with suppress(ValueError):  # it is named when it is read
                truncated += self.prompts.encode(sample.question, sample.answer).truncated
        return f"{truncated} of {count} questions"

    def image_inputs(self, sample: VqaSample) -> dict[str, torch.Tensor]:
        """-> image (3, S, S), unless its patches are cached; and what is cached: patches (N, V), pooled (P,)."""
        features = self.features[sample.path] if self.features else {}
        if "patches" in features:
            return features
        return {"image": squeeze(self.images[sample.path], self.image_size), **features}

    def file_of(self, index: int) -> str:
        """The sample's image, and its row in the table, as file:line."""
        return f"{self.samples[index].image} (row {self.samples[index].place})"

    def collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts = self.prompts.collate([item.pop("encoded") for item in items])
        return default_collate(items) | texts


def table_of(settings: Namespace, split: str) -> tuple[Path, Path, str, Columns]:
    """-> table of a split, folder of its images, how to read it, its columns."""
    root = find_from_root(settings.data_root)
    columns = Columns(
        settings.data_image_column,
        settings.data_question_column,
        settings.data_answer_column,
        settings.data_style_column,
        settings.data_type_column,
        settings.data_style_type,
    )
    image_root = Path(find_from_root(settings.data_image_root) or root)
    return Path(root, getattr(settings, f"data_{split}_csv")), image_root, settings.data_dataset_name, columns


def read_splits(
    settings: Namespace, names: Sequence[str], is_main: bool = True
) -> tuple[dict[str, list[VqaSample]], dict[str, str]]:
    """-> {split: samples}, {skipped row: reason}. --demo draws its data into a folder that is missing or empty."""
    root = Path(find_from_root(settings.data_root))
    image_root = Path(find_from_root(settings.data_image_root) or root)
    if settings.demo and is_main and is_vacant(root):
        print(f"{root}: nothing there yet; drawing {DEMO_IMAGES} sample pictures with questions into it")
        create_sample_dataset(root, DEMO_IMAGES, DEMO_SEED, layout="vqa")
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder, with {settings.data_train_csv} in it (--data.root); to try drawn pictures: --demo"
        )
    if not image_root.is_dir():
        raise FileNotFoundError(f"{image_root}: no such folder of images (--data.image_root)")
    splits, skipped = {}, {}
    for name in names:
        splits[name], skipped_rows = read_samples(*table_of(settings, name))
        skipped |= skipped_rows
    return splits, skipped


def build_datasets(
    settings: Namespace,
    splits: dict[str, list[VqaSample]],
    skipped: dict[str, str],
    model: Blip2OPTGated,
    accelerator: Accelerator,
) -> tuple[dict[str, VqaDataset], dict[str, str]]:
    """Read a few images, or with --training.cache_features all of them; skip questions about unreadable ones
    -> {split: data set}, {skipped row: reason}"""
    cache_dir, quiet = Path(settings.data_cache_dir), not accelerator.is_main_process
    total, skipped = len(skipped) + sum(map(len, splits.values())), dict(skipped)
    datasets: dict[str, VqaDataset] = {}
    size = round(CACHE_SCALE * model.image_size)
    limit, kept_as = settings.data_cache_gb, settings.data_cache_format
    images = ImageCache(size, cache_dir / "images", limit, settings.data_root, quiet, kept_as)
    paths = list(dict.fromkeys(sample.path for samples in splits.values() for sample in samples))
    unreadable = images.check(paths, len(paths) if settings.training_cache_features else CHECKED)
    for name, samples in splits.items():
        skipped |= {sample.place: unreadable[str(sample.path)] for sample in samples if str(sample.path) in unreadable}
        usable = [sample for sample in samples if str(sample.path) not in unreadable] if unreadable else samples
        if not usable:
            raise ValueError(f"{name} split: no usable sample; the first: {': '.join(next(iter(skipped.items())))}")
        datasets[name] = VqaDataset(
            usable, images, model.image_size, model.prompts, model.styles, settings.loss_style_where
        )
        datasets[name].skipped.limit = settings.data_max_skipped
    if not quiet:
        report_skipped(skipped)
    check_skip_rate(skipped, total, settings.data_max_skipped, settings.data_root)
    if settings.training_cache_features:
        model.to(accelerator.device)
        for dataset in datasets.values():
            paths = list(dict.fromkeys(sample.path for sample in dataset.samples))
            dataset.features = cache_features(
                model, images, paths, cache_dir / "features", accelerator.device, quiet=quiet
            )
    return datasets, skipped
