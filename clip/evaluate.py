"""Evaluation of a CLIP model on a folder of image-text pairs.

    python clip/evaluate.py --weights model-checkpoint/best_model.pth --data_dir FOLDER [--split val] [--json]

images, texts -> vectors -> retrieval both ways, cosines of true and false pairs, BLEU and ROUGE of the retrieved text,
and where images have classes, zero-shot classification and a linear probe; each with its chance level, recalls and
accuracies with a 95 % interval. --output_dir gets evaluation.json, per_query.jsonl, similarity.png, retrieval.png, and
skipped.jsonl.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress
from json import dumps
from pathlib import Path, PurePosixPath
from typing import Any, Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveInt

from clip.checkpoint import load_clip
from clip.dataset import PairDataset, find_pairs, split_pairs
from clip.embed import embed_images, embed_pairs
from clip.metrics import measure_classes, measure_retrieval, measure_retrieved_texts, sample
from clip.pair_files import IMAGE_KEYS, Columns
from clip.pair_table import PairTable
from clip.pairs import DEFAULT_TEXT_FIELDS
from clip.report import format_report, write_results
from common.cli.errors import run_script
from common.cli.paths import find_from_root
from common.cli.tool_parser import tool
from common.images.cache import CACHE_SCALE, ImageCache
from common.metrics.retrieval import rank_both_ways, similarity_statistics
from common.text.tables import read_table
from common.training.device import choose_device
from common.training.skip_log import SkipLog, report_skipped


@tool
def main(
    *,
    weights: str,  # best_model.pth, a folder or name of a Hugging Face CLIP, ViT-B/32, NAME:TAG of open_clip
    data_dir: Path,  # pairs in any format that train.py reads
    output_dir: Path = Path("results/evaluation"),
    split: str = "",  # train or val as in the training of these weights, or a label of --split_csv; default: all pairs
    split_csv: Path | None = None,  # table with columns image and split; the linear probe is fitted to its 'train'
    classes: Literal["label", "character", "title", "folder"] = "label",  # source of the classes
    classes_csv: Path | None = None,  # table of images and classes, in place of --classes
    class_column: str = "category",  # column of the classes in it
    templates: Sequence[str] = (),  # prompts for class names, {} stands for the name
    text_fields: Sequence[str] = (),  # texts of a metadata line; default: as in training
    columns: Columns,
    limit: NonNegativeInt = 0,  # evaluate a random sample of this many images; 0: all
    batch_size: PositiveInt = 64,  # images or texts encoded at once
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    if split_csv and not split:
        raise ValueError("--split_csv: name one of its splits with --split")
    if invalid := [template for template in templates if "{}" not in template]:
        raise ValueError(f"--templates '{invalid[0]}': expected {{}} where the class name goes")
    data_dir, weights = Path(find_from_root(str(data_dir))), find_from_root(weights)
    torch_device = choose_device(device)
    model, content = load_clip(weights, torch_device)
    settings = content.get("settings", {})
    pairs, skipped = find_pairs(data_dir, text_fields or settings.get("text_fields", DEFAULT_TEXT_FIELDS), columns)
    if classes_csv:
        source, labels = (
            f"{class_column} in {classes_csv}",
            read_column(classes_csv, class_column, pairs, "--classes_csv"),
        )
    else:
        source, labels = f"{classes} of each image", pairs.values(classes)
    images, log = ImageCache(round(CACHE_SCALE * model.image_size)), SkipLog(limit=1)
    test, fit = pairs, pairs[:0]
    if split_csv:
        test, fit = select_by_table(pairs, split, split_csv)
    elif split:
        unreadable = images.check(pairs.images)
        test, skipped = select_by_training(pairs.without(unreadable), split, settings), skipped | unreadable
    if not len(test):
        raise ValueError(f"{data_dir}: no image to evaluate; --split {split}")
    test_set, fit_set = (
        PairDataset(part, images, model.preprocess, model.tokenizer, skipped=log)
        for part in (test.select(sample(range(len(test)), limit)), fit)
    )
    embeddings = embed_pairs(model, test_set, torch_device, batch_size)
    vectors = [values.to(torch_device) for values in embeddings[:4]]
    rankings = rank_both_ways(*vectors)
    class_of = {key: label.replace("_", " ") for key, label in zip(pairs.values("key"), labels)}
    names = embeddings.pairs.values("key")
    fit_vectors, fit_labels = None, [class_of[key] for key in fit.values("key")]
    if any(fit_labels):
        fit_vectors, readable = embed_images(model, fit_set, torch_device, batch_size)
        fit_labels = list(compress(fit_labels, readable))
    skipped |= log.skipped
    report_skipped(skipped)
    note = ""
    if not split and settings.get("data_dir") and Path(settings["data_dir"]).resolve() == data_dir.resolve():
        note = "these weights were trained on images of this folder, which are evaluated too"
        note += "; --split val evaluates the others alone" if settings.get("val_split") else ""
    report = {
        "weights": weights,
        "data_dir": str(data_dir),
        "split": split,
        "images": len(names),
        "texts": len(embeddings.texts),
        "unique_texts": int(embeddings.text_ids.max()) + 1,
        "truncated_texts": test_set.texts.tokens.truncated,
        "skipped": len(skipped),
        "note": note,
        "retrieval": measure_retrieval(*rankings, embeddings.image_of_text),
        "similarity": similarity_statistics(*vectors),
        "retrieved_text": measure_retrieved_texts(rankings[0], embeddings),
        "class_source": source,
        **measure_classes(
            model,
            embeddings.image_vectors,
            [class_of[key] for key in names],
            fit_vectors,
            fit_labels,
            templates,
            torch_device,
        ),
    }
    write_results(output_dir, report, rankings, embeddings, names, skipped)
    print(dumps(report, indent=2, ensure_ascii=False) if json else format_report(report, output_dir))
    return report


def read_column(path: Path, column: str, pairs: PairTable, flag: str) -> list[str]:
    """The labels of one column of a table, in the order of the pairs, '' for images that are not in the table.

    Images are named as in the index, or by the end of that path, as long as no two images share it.
    """
    columns, rows = read_table(path, {column: flag}, flag)
    image_column = next((name for name in columns if name in IMAGE_KEYS), None)
    if image_column is None:
        raise ValueError(f"{path}: no column of images; expected one of {', '.join(IMAGE_KEYS)} in its first line")
    label_of: dict[str, str] = {}
    for row in rows:
        name = str(PurePosixPath(row[image_column].replace("\\", "/")))
        if label_of.setdefault(name, row[column].strip()) != row[column].strip():
            raise ValueError(f"{path}: {name} is both '{label_of[name]}' and '{row[column].strip()}'")

    def endings(key: str) -> Iterator[str]:  # a/b/c.jpg, b/c.jpg, c.jpg, those of the table
        parts = PurePosixPath(key.replace("\\", "/")).parts
        return filter(label_of.__contains__, ("/".join(parts[start:]) for start in range(len(parts))))

    keys = pairs.values("key")
    counts = Counter(ending for key in keys for ending in endings(key))
    labels = [next((label_of[end] for end in endings(key) if counts[end] == 1), "") for key in keys]
    if not any(labels):
        raise ValueError(f"{path}: names none of the {len(pairs)} images; the first is called {keys[0]}")
    return labels


def select_by_table(pairs: PairTable, split: str, split_csv: Path) -> tuple[PairTable, PairTable]:
    """-> images of a split, images to fit the linear probe to: those of 'train', none where that is the split."""
    splits = np.array(read_column(split_csv, "split", pairs, "--split_csv"))
    if split not in splits:
        raise ValueError(f"--split {split}: not in {split_csv}, which has {', '.join(sorted({*splits} - {''}))}")
    return pairs.select(splits == split), pairs.select((splits == "train") & (split != "train"))


def select_by_training(pairs: PairTable, split: str, settings: dict[str, Any]) -> PairTable:
    """Images of the split that training made."""
    if split not in ("train", "val") or not settings.get("val_split"):
        raise ValueError(
            f"--split {split}: without --split_csv there are train and val, and those only for weights that "
            "clip/train.py wrote with a validation set"
        )
    train, val = split_pairs(pairs, settings["val_split"], settings["seed"])
    return train if split == "train" else val


if __name__ == "__main__":
    run_script(main)
