"""Accuracy of names for styles that no fit has seen (fit_names.py).

    python benchmarks/style_names.py --pretrained WEIGHTS --icons DIR --emoji DIR [--text_encoders hash FOLDER]

The read-out of names uses frozen maps, so no training is needed: these figures are those of every style encoder that
starts from WEIGHTS. It is fitted on drawn styles and on ten of the fifteen sample styles, others for each seed, and
tested on new makers:
    invented   64 drawn styles of other makers, by their words
    samples    the five others, among the descriptions of all fifteen
    icons, emoji   real drawings, by descriptions that were written before the first result (style_descriptions.json)
`plain` are names a person would type, which only a pretrained text encoder can know.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.style_splits import link_styles
from common.metrics.bootstrap import bootstrap_interval
from common.samples.invented import draw_bank, invented_style, style_seed
from common.samples.invented_words import describe
from common.samples.layouts import create_sample_dataset
from common.text.files import read_json, write_json
from dataset import find_samples
from fit_names import DRAWN_STYLES, fit_names
from model import VisionStyleEncoder
from style_encoder import encode_folder
from style_names import encode_names, name_similarity, statistics_of
from text_encoder import TextEncoderRecord

CPU = torch.device("cpu")
MODEL, SIZE = "tf_efficientnet_lite0", 96
HELD_OUT_BANK, STYLES, IMAGES = 77, 64, 8  # another seed than that of the fit: other makers; images of each style
SAMPLES = 360  # of the fifteen sample styles together


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", required=True, help=f"weights of {MODEL}, ImageNet's")
    parser.add_argument("--icons", type=Path, required=True, help="folder of icon families")
    parser.add_argument("--emoji", type=Path, required=True, help="folder of emoji styles")
    parser.add_argument("--text_encoders", nargs="+", default=["hash"], help="as in prepare_targets.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/style_names"))
    args = parser.parse_args()
    encoder = VisionStyleEncoder(MODEL, args.pretrained, SIZE, frozen_maps=4).eval()
    texts_of = read_json(Path(__file__).with_name("style_descriptions.json"))
    samples = args.work_dir / "samples"
    if not samples.exists():
        create_sample_dataset(samples, SAMPLES)
    folders = {"samples": samples, "icons": args.icons, "emoji": args.emoji}
    images = {
        name: read_styles({style: folder / style for style in texts_of[name]}, encoder)
        for name, folder in folders.items()
    }
    described = {style: texts[0] for style, texts in texts_of["samples"].items()}
    for style, text in described.items():
        (samples / style / "style.txt").write_text(text + "\n")
    unseen = {seed: draw_unseen(args.work_dir / f"unseen_{seed}", seed) for seed in args.seeds}
    makers = {seed: (read_styles(folders, encoder), words) for seed, (folders, words) in unseen.items()}
    results = {}
    for text_encoder in args.text_encoders:
        record = TextEncoderRecord(text_encoder=text_encoder, max_length=64, prompt="{style} style")
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in args.seeds:
            started, held_out = time.time(), sorted(described)[seed::3]
            seen = [samples / style for style in described if style not in held_out]
            data = find_samples(link_styles(seen, args.work_dir / str(seed)))
            names = fit_names(encoder, record, data, DRAWN_STYLES, args.work_dir / "cache")
            print(f"{text_encoder}, seed {seed}: fitted in {(time.time() - started) / 60:.1f} minutes", flush=True)
            groups = {"invented": (*makers[seed], list(makers[seed][1]))}
            for kind, column in (("", 0), (", plain", 1)):
                for name, rows_of in images.items():
                    texts = {style: texts_of[name][style][column] for style in rows_of}
                    groups[name + kind] = (rows_of, texts, held_out if name == "samples" else list(texts))
            for name, group in groups.items():
                rows.setdefault(name, []).append(score(*group, names))
        print(f"\n{text_encoder}\n")
        print_table(rows)
        results[text_encoder] = rows
        write_json(args.work_dir / "scores.json", results)


def draw_unseen(folder: Path, seed: int) -> tuple[dict[str, Path], dict[str, str]]:
    """-> folders, words of invented styles of makers that no fit sees, by number."""
    bank = HELD_OUT_BANK + seed
    if not folder.exists():
        for number, pictures in enumerate(draw_bank(STYLES, IMAGES, SIZE, bank)):
            (folder / str(number)).mkdir(parents=True)
            for content, picture in enumerate(pictures):
                Image.fromarray(picture).save(folder / str(number) / f"{content}_img.png")
    numbers = range(STYLES)
    words = {str(number): describe(invented_style(style_seed(bank, number))) for number in numbers}
    return {str(number): folder / str(number) for number in numbers}, words


def read_styles(folders: dict[str, Path], encoder: VisionStyleEncoder) -> dict[str, torch.Tensor]:
    """-> statistics (N, W) of each style's images"""
    return {style: encode_folder(path, encoder, statistics_of(encoder))[1] for style, path in folders.items()}


def score(images: dict[str, torch.Tensor], texts: dict[str, str], asked: list[str], names: dict) -> dict[str, float]:
    """images: statistics of each style; texts: its description; asked: the styles that are queries.

    Share of images whose own description is first of all different ones, its 95 % interval over styles, or among five;
    of styles by the mean of their images; share of the most frequent answer; mean AUC of the words of descriptions.
    """
    choices = list(dict.fromkeys(texts.values()))
    vectors = torch.cat([images[style] for style in asked])
    truth = torch.tensor([choices.index(texts[style]) for style in asked for _ in images[style]])
    cosines = name_similarity(vectors, encode_names(choices, names, CPU), names)
    ranks = (cosines > cosines.gather(1, truth[:, None])).sum(1)
    means = [rows.mean(0) for rows in cosines.split([len(images[style]) for style in asked])]
    right = [choices[int(row.argmax())] == texts[style] for row, style in zip(means, asked)]
    words = sorted({word for text in choices for word in text.split(", ")})
    single = name_similarity(vectors, encode_names(words, names, CPU), names).numpy()
    holds = np.array([[word in choices[answer].split(", ") for word in words] for answer in truth.tolist()])
    told_apart = [index for index in range(len(words)) if 0 < holds[:, index].sum() < len(truth)]
    style = [number for number, name in enumerate(asked) for _ in images[name]]
    low, high = bootstrap_interval((ranks == 0).numpy(), style)
    return {
        "choices": len(choices),
        "first": float((ranks == 0).float().mean()),
        "low": low,
        "high": high,
        "chance": 1 / len(choices),
        "most frequent": float(truth.bincount().max()) / len(truth),
        "among five": float((ranks < 5).float().mean()) if len(choices) > 5 else float("nan"),
        "style first": float(np.mean(right)),
        "AUC of a word": float(np.mean([roc_auc_score(holds[:, i], single[:, i]) for i in told_apart])),
    }


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    measures = list(rows["invented"][0])
    print(f"| | {' | '.join(measures)} |\n|{'---|' * (len(measures) + 1)}")
    for name, results in rows.items():
        values = np.array([[result[measure] for measure in measures] for result in results])
        cells = [
            f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(values.mean(0), values.std(0, ddof=len(values) > 1))
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
