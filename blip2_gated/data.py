"""Settings to data sets: which tables are read, what is left out, pixels or kept features.

settings -> samples per split -> images decoded once -> VqaDataset per split
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from blip2_gated.dataset import Columns, Sample, VqaDataset, image_paths, read_samples
from blip2_gated.feature_cache import keep_features
from blip2_gated.model import Blip2OPTGated
from common.images.cache import CACHE_SCALE, ImageCache
from common.samples.layouts import create_sample_dataset
from common.training.skip_log import check_skip_rate, report_skipped

SAMPLE_ROOT = (
    "./data/vqa"  # the default of data.root, and the only folder that sample data is drawn into without --demo
)
SAMPLE_IMAGES = {True: 1000, False: 100}  # drawn for the demo, and where the default folder is not there


def read_splits(
    settings: Namespace, names: Sequence[str], is_main: bool = True
) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """-> {split: samples}, {left out: why}. Drawn samples where the default folder, or the demo's, does not exist."""
    root = Path(settings.data_root)
    if not root.exists() and (settings.demo or settings.data_root == SAMPLE_ROOT):
        if is_main:
            print(f"no folder {root}: drawing {SAMPLE_IMAGES[settings.demo]} sample pictures with questions there")
            create_sample_dataset(root, SAMPLE_IMAGES[settings.demo], layout="vqa")
    elif not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder (--data.root)")
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
        splits[name], bad = read_samples(table, image_root(settings), settings.data_dataset_name, columns)
        skipped |= bad
    return splits, skipped


def image_root(settings: Namespace) -> Path:
    return Path(settings.data_image_root or settings.data_root)


def prepare_data(
    settings: Namespace,
    splits: dict[str, list[Sample]],
    skipped: dict[str, str],
    model: Blip2OPTGated,
    accelerator: Accelerator,
) -> tuple[dict[str, VqaDataset], dict[str, str]]:
    """Decode every image once, leave out questions about broken ones, keep features if asked -> {split: data set}."""
    cache, quiet = Path(settings.data_cache_dir), not accelerator.is_main_process
    stores, total = {}, len(skipped) + sum(map(len, splits.values()))
    skipped, splits = dict(skipped), dict(splits)
    for name, samples in splits.items():
        paths = image_paths(samples, image_root(settings))
        images = ImageCache(paths, round(CACHE_SCALE * model.image_size), cache / "images", quiet=quiet)
        splits[name] = []
        for one in samples:
            path = str(image_root(settings) / one.image)
            if path in images.skipped:
                skipped[f"{name}:{one.number + 2}"] = images.skipped[path]
            else:
                splits[name].append(one)
        stores[name] = images
    if not quiet:
        report_skipped(skipped)
    check_skip_rate(skipped, total, settings.data_max_skipped, settings.data_root)
    if settings.training_cache_features:
        model.to(accelerator.device)
        stores = {
            name: keep_features(
                model,
                images,
                image_paths(splits[name], image_root(settings)),
                cache / "features",
                accelerator.device,
                quiet=quiet,
            )
            for name, images in stores.items()
        }
    sets = {
        name: VqaDataset(
            splits[name],
            stores[name],
            model.image_size,
            model.prompts,
            model.styles,
            settings.loss_style_where,
            image_root(settings),
        )
        for name in splits
    }
    return sets, skipped
