"""How good is a CLIP model on a folder of pairs?

    python clip/evaluate.py --weights model-checkpoint/best_model.pth --data_dir FOLDER [--split val] [--json]

images, texts -> vectors -> retrieval both ways, cosines of true and false pairs, BLEU and ROUGE of the text found, and
where images have classes, zero-shot classification and a linear probe; each with its chance level, recalls and
accuracies with a 95 % interval. --output_dir gets evaluation.json, per_query.jsonl, similarity.png, retrieval.png, and
skipped.jsonl, which names what could not be used.
"""

import argparse
import json
import sys
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from clip.checkpoint import load_clip
from clip.csv_labels import read_column
from clip.dataset import Pair, PairDataset, find_pairs, split_pairs
from clip.embed import encode_images, encode_pairs
from clip.metrics import draw, measure_classes, measure_found_texts, measure_retrieval
from clip.model import CLIPModel
from clip.pairs import DEFAULT_TEXT_FIELDS
from clip.report import format_report, write_results
from common.cli.errors import run_script
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.transforms import square
from common.metrics.retrieval import rank_both_ways, same_words, similarity_statistics
from common.training.device import choose_device
from common.training.skip_log import report_skipped

CLASSES = {
    "label": lambda pair: pair.label,
    "character": lambda pair: pair.name,
    "title": lambda pair: pair.title,
    "folder": lambda pair: PurePosixPath(pair.key).parent.name,
}


class Images(NamedTuple):
    """Pairs whose image can be read, and their pixels."""

    pairs: list[Pair]
    pixels: ImageCache


def main(argv: list[str]) -> dict[str, Any]:
    args = read_arguments(argv)
    device = choose_device(args.device)
    model, content = load_clip(args.weights, device)
    settings = content.get("settings", {})
    fields = args.text_fields or settings.get("text_fields", DEFAULT_TEXT_FIELDS)
    pairs, skipped = find_pairs(args.data_dir, fields)
    source, class_of = read_classes(args, pairs)
    asked, to_fit, broken = choose_images(args, settings, pairs, model.image_size)
    skipped |= broken
    report_skipped(skipped)

    dataset = PairDataset(*asked, model.image_size, model.tokenizer)
    encoded = encode_pairs(model, dataset, device, args.batch_size)
    text_ids = same_words(encoded.texts)
    vectors = encoded.image_vectors.to(device), encoded.text_vectors.to(device), encoded.image_of_text
    rankings = rank_both_ways(*vectors, text_ids)
    labels, fit_labels = ([class_of[pair.key] for pair in images.pairs] for images in (asked, to_fit))
    fit_vectors = encode_whole(model, to_fit, device, args.batch_size) if any(fit_labels) else None
    report = {
        "weights": str(args.weights),
        "data_dir": str(args.data_dir),
        "split": args.split,
        "images": len(dataset),
        "texts": len(encoded.texts),
        "different_texts": int(text_ids.max()) + 1,
        "texts_cut": dataset.cut_texts,
        "left_out": len(skipped),
        "note": note_on(args, settings),
        "retrieval": measure_retrieval(*rankings, encoded.image_of_text),
        "similarity": similarity_statistics(*vectors, text_ids),
        "found_text": measure_found_texts(rankings[0], encoded),
        "classes_from": source,
        **measure_classes(model, encoded.image_vectors, labels, fit_vectors, fit_labels, args.templates, device),
    }
    write_results(args.output_dir, report, rankings, encoded, [pair.key for pair in asked.pairs], skipped)
    print(json.dumps(report, indent=2, ensure_ascii=False) if args.json else format_report(report, args.output_dir))
    return report


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="best_model.pth, or folder or name of a Hugging Face CLIP")
    parser.add_argument("--data_dir", type=Path, required=True, help="pairs in any form that train.py reads")
    parser.add_argument("--output_dir", type=Path, default=Path("results/evaluation"), help="default %(default)s")
    parser.add_argument(
        "--split",
        help="only this split: train or val as the training of these weights split the "
        "folder, or a word of --split_csv",
    )
    parser.add_argument(
        "--split_csv",
        type=Path,
        help="table with columns image and split; the linear probe is then fitted to the images of its 'train'",
    )
    parser.add_argument("--classes", choices=CLASSES, default="label", help="what is the class; default %(default)s")
    parser.add_argument("--classes_csv", type=Path, help="table of images and classes, in place of --classes")
    parser.add_argument("--class_column", default="category", help="the classes in it; default %(default)s")
    parser.add_argument("--templates", nargs="+", default=(), help="prompts for class names, {} stands for the name")
    parser.add_argument("--text_fields", nargs="+", help="texts of a metadata line; default: training's")
    parser.add_argument("--limit", type=int, default=0, help="only so many images, drawn at random; 0 = all")
    parser.add_argument("--batch_size", type=int, default=64, help="images or texts encoded at once")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or args.limit < 0:
        raise ValueError("--batch_size: expected 1 or more; --limit: 0 or more")
    if args.split_csv and not args.split:
        raise ValueError("--split_csv: name one of its splits with --split")
    if bad := [template for template in args.templates if "{}" not in template]:
        raise ValueError(f"--templates '{bad[0]}': expected {{}} where the class name goes")
    return args


def read_classes(args: argparse.Namespace, pairs: list[Pair]) -> tuple[str, dict[str, str]]:
    """-> where classes come from, {image: class, '' = not known}."""
    if args.classes_csv:
        labels = read_column(args.classes_csv, args.class_column, pairs, "--classes_csv")
        source = f"{args.class_column} in {args.classes_csv}"
    else:
        source, labels = f"{args.classes} of each image", [CLASSES[args.classes](pair) for pair in pairs]
    return source, {pair.key: label.replace("_", " ") for pair, label in zip(pairs, labels)}


def choose_images(
    args: argparse.Namespace, settings: dict[str, Any], pairs: list[Pair], size: int
) -> tuple[Images, Images, dict[str, str]]:
    """-> images to ask about, images that only a probe is fitted to, {what cannot be read: why}."""
    to_fit: list[Pair] = []
    if args.split_csv:
        splits = read_column(args.split_csv, "split", pairs, "--split_csv")
        if args.split not in splits:
            known = ", ".join(sorted(set(splits) - {""}))
            raise ValueError(f"--split {args.split}: not in {args.split_csv}, which knows {known}")
        if args.split != "train":
            to_fit = [pair for pair, split in zip(pairs, splits) if split == "train"]
        pairs = [pair for pair, split in zip(pairs, splits) if split == args.split]
    elif args.split and (args.split not in ("train", "val") or not settings.get("val_split")):
        raise ValueError(
            f"--split {args.split}: without --split_csv there are train and val, and those only of weights that "
            "clip/train.py wrote with a validation set"
        )
    if args.split_csv or not args.split:
        asked, broken = readable(draw(pairs, args.limit), size)
    else:  # as training did: what is broken goes first, then the rest is split
        asked, broken = readable(pairs, size)
        sides = split_pairs(asked.pairs, settings["val_split"], settings["seed"])
        asked = Images(draw(sides[args.split == "val"], args.limit), asked.pixels)
    if not asked.pairs:
        raise ValueError(f"{args.data_dir}: no image is left to ask about; {next(iter(broken.values()), '--split')}")
    to_fit, broken_too = readable(to_fit, size)
    return asked, to_fit, broken | broken_too


def readable(pairs: list[Pair], size: int) -> tuple[Images, dict[str, str]]:
    """Those whose image can be decoded, for a model of `size` pixels, {the others: why}."""
    pixels = ImageCache([pair.image for pair in pairs], round(CACHE_SCALE * size), cache_dir=None, quiet=not pairs)
    return Images(pixels.readable(pairs), pixels), pixels.skipped


def encode_whole(model: CLIPModel, images: Images, device: torch.device, batch_size: int) -> torch.Tensor:
    """Every image, uncropped -> (N, D)."""

    def read(index: int) -> torch.Tensor:
        return torch.tensor(square(images.pixels[images.pairs[index].image], model.image_size)).permute(2, 0, 1)

    return encode_images(model, read, len(images.pairs), device, batch_size)


def note_on(args: argparse.Namespace, settings: dict[str, Any]) -> str:
    """What a reader of the numbers has to know, or ''."""
    if args.split or not settings.get("data_dir") or Path(settings["data_dir"]).resolve() != args.data_dir.resolve():
        return ""
    rest = "; --split val asks about the others" if settings.get("val_split") else ""
    return f"these weights were trained on images of this folder, and they are among those asked about{rest}"


if __name__ == "__main__":
    run_script(main)
