"""Effect of gating on questions about style: plain Q-Former, film, gate, kv and LoRA on real drawings, three seeds.

    python benchmarks/blip2_real.py --data_dir FOLDER --efficientnet_weights FILE [--arms film kv] [--seeds 0]

FOLDER holds train.csv, val.csv, test.csv (image, question, answer, style) and templates.csv (type, template). For each
seed a small BLIP-2 is trained from scratch on the questions about one half of the training images: it stands for the
published one, and the script stops if it answers no better than the question-only baseline. Each arm starts from it
with vision tower and language model frozen and is trained on the other half:

    plain   the whole Q-Former is trainable, no gates        lora    LoRA on its W_K and W_V alone is trainable
    film, gate, kv   the Q-Former is frozen; gates, prompt mapper and the projection of the EfficientNet are trainable

All take equal steps and are evaluated on the test table with the epoch of the lowest validation loss. Finished arms are
kept in --work_dir and skipped the next time, so the script can be stopped and started again.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blip2_gated import evaluate, train
from blip2_gated.backbone import SMALL
from blip2_gated.checkpoint import load_gated
from common.text.files import write_json

CONFIG = {**SMALL, "vision_config": {**SMALL["vision_config"], "image_size": 96, "patch_size": 16}}
ARMS = {
    "plain": ["--model.gating.type", "none", "--model.train", "qformer"],
    "film": ["--model.gating.type", "film"],
    "gate": ["--model.gating.type", "gate"],
    "kv": ["--model.gating.type", "kv"],
    "lora": ["--model.gating.type", "none", "--model.lora.enabled"],
}
MIN_GAIN = 5.0  # percentage points over the question-only baseline that a base needs for arms to be compared on it
ABOUT = {"style": ("style", "technique", "is_style"), "content": ("content", "group", "is_content")}


def main() -> None:
    args = read_arguments()
    folder = Path(args.work_dir).resolve()
    write_tables(Path(args.data_dir), folder, args.val_questions)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for seed in args.seeds:
        base = folder / f"base_{seed}"
        if not (base / "scores.json").is_file():
            train_and_evaluate(args, base, [*base_flags(args, folder, seed), *run_flags(folder, base)])
            save_base(base)
        check_base(base)
        for arm in args.arms:
            run = folder / f"{arm}_{seed}"
            if not (run / "scores.json").is_file():
                flags = arm_flags(args, folder, base, seed, args.efficientnet_weights, 128)
                train_and_evaluate(args, run, [*flags, *run_flags(folder, run), *ARMS[arm]])
    report(folder, ["base", *args.arms], args.seeds)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--efficientnet_weights", required=True, help="of tf_efficientnet_lite0, ImageNet's")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--base_epochs", type=int, default=12)
    parser.add_argument("--warm_start_steps", type=int, default=400, help="of the base, to see and to read")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--val_questions", type=int, default=600, help="of the validation table, evenly spread")
    parser.add_argument("--work_dir", default="./.cache/blip2_real")
    return parser.parse_args()


def write_tables(data: Path, folder: Path, val_questions: int) -> None:
    """The tables with a column of types, the training table in two halves by image; paths relative to `data`."""
    tables = read_questions(data)
    tables["val"] = spread(tables["val"], val_questions)
    for name, rows in tables.items():
        write_table(folder / f"{name}.csv", rows)


def read_questions(data: Path) -> dict[str, list[list[str]]]:
    """-> rows (image, question, answer, style, type) of half_0 and half_1 of the training table, val and test."""
    with (data / "templates.csv").open(encoding="utf-8", newline="") as file:
        templates = [
            (row["type"], re.compile(re.escape(row["template"]).replace(r"\{\}", ".+"))) for row in csv.DictReader(file)
        ]
    tables: dict[str, list[list[str]]] = {"half_0": [], "half_1": [], "val": [], "test": []}
    for split in ("train", "val", "test"):
        with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                kind = next(kind for kind, pattern in templates if pattern.fullmatch(row["question"]))
                half = hashlib.blake2b(row["image"].encode(), digest_size=1).digest()[0] % 2
                name = f"half_{half}" if split == "train" else split
                tables[name].append([row["image"], row["question"], row["answer"], row["style"], kind])
    return tables


def spread(rows: list[list[str]], count: int) -> list[list[str]]:
    """About `count` of the rows, evenly spread."""
    return rows[:: max(1, len(rows) // count)]


def write_table(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "question", "answer", "style", "type"], *rows])


def shared_flags(args: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    return [
        "--data.root",
        str(folder),
        "--data.image_root",
        args.data_dir,
        "--data.type_column",
        "type",
        "--data.val_csv",
        "val.csv",
        "--data.cache_dir",
        str(folder / "cache"),
        "--training.seed",
        str(seed),
        "--training.device",
        "cpu",
        "--training.batch_size",
        "32",
        "--training.learning_rate",
        "1e-3",
        "--training.warmup_steps",
        "60",
        "--training.eval_samples",
        "0",
        "--training.log_steps",
        "50",
    ]


def run_flags(folder: Path, run: Path) -> list[str]:
    return ["--training.checkpoint_dir", str(run), "--training.log_dir", str(folder / "logs")]


def base_flags(args: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    return [
        *shared_flags(args, folder, seed),
        "--data.train_csv",
        "half_0.csv",
        "--model.blip2",
        str(folder / "config.json"),
        "--model.train",
        "all",
        "--model.gating.type",
        "none",
        "--loss.style_hit",
        "0",
        "--training.epochs",
        str(args.base_epochs),
        "--training.warm_start_steps",
        str(args.warm_start_steps),
        "--training.learning_rate",
        "5e-4",
    ]


def save_base(base: Path) -> None:
    """The folder that every arm starts from."""
    model, _ = load_gated(base / "best.pt")
    model.blip2.save_pretrained(base / "blip2")
    model.prompts.tokenizer.save_pretrained(base / "blip2")


def check_base(base: Path) -> None:
    """Stop if the base does not use the image."""
    scores = json.loads((base / "scores.json").read_text())
    correct, baseline = (about(scores, "style", which) for which in ("correct", "question_only"))
    if correct < baseline + MIN_GAIN:
        raise SystemExit(
            f"{base}: {correct:.1f} % correct about style, question-only baseline {baseline:.1f} %; a frozen language "
            "model that ignores the image gains from no arm; train the base longer or at another learning rate"
        )


def arm_flags(args: argparse.Namespace, folder: Path, base: Path, seed: int, weights: str, size: int) -> list[str]:
    """Of every arm. weights, size: of the EfficientNet."""
    return [
        *shared_flags(args, folder, seed),
        "--data.train_csv",
        "half_1.csv",
        "--model.blip2",
        str(base / "blip2"),
        "--model.efficientnet.name",
        "tf_efficientnet_lite0",
        "--model.efficientnet.weights",
        weights,
        "--model.efficientnet.image_size",
        str(size),
        "--model.prompt_mapper.hidden",
        "192",
        "--training.cache_features",
        "--training.epochs",
        str(args.epochs),
    ]


def train_and_evaluate(args: argparse.Namespace, run: Path, flags: list[str]) -> None:
    """Train, answer the test questions, write scores.json last."""
    run.mkdir(parents=True, exist_ok=True)
    start, spent = time.perf_counter(), time.process_time()
    with (run / "output.log").open("w") as log, contextlib.redirect_stdout(log):
        results = train.main(flags)
        minutes, cpu_minutes = (time.perf_counter() - start) / 60, (time.process_time() - spent) / 60
        evaluation = evaluate.main(
            [
                "--checkpoint",
                str(run / "best.pt"),
                "--split",
                "test",
                "--num_beams",
                "1",
                "--device",
                "cpu",
                "--batch_size",
                "64",
                "--output_dir",
                str(run / "test"),
                "--data.test_csv",
                "test.csv",
            ]
        )
    model, _ = load_gated(run / "best.pt")
    scores = {
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "minutes": minutes,
        "cpu_minutes": cpu_minutes,
        "best_epoch": results["best_epoch"],
        "correct": {kind: values["vqa_accuracy"] for kind, values in evaluation["by_type"].items()},
        "question_only": {kind: values["question_only"] for kind, values in evaluation["by_type"].items()},
        "questions": {kind: values["questions"] for kind, values in evaluation["by_type"].items()},
        "main": evaluation["losses"]["main"],
    }
    write_json(run / "scores.json", scores)
    print(
        f"{run.name}: style {about(scores, 'style'):.1f} %, content {about(scores, 'content'):.1f} %, "
        f"{minutes:.1f} minutes ({cpu_minutes:.1f} of CPU), best epoch {scores['best_epoch']}"
    )


def about(scores: dict, what: str, which: str = "correct") -> float:
    """Correct answers to questions of that kind, %; which: 'question_only' for those of the baseline."""
    kinds = ABOUT[what]
    return sum(scores[which][kind] * scores["questions"][kind] for kind in kinds) / sum(
        scores["questions"][kind] for kind in kinds
    )


def report(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Mean over seeds and, behind it, the lowest and the highest; gains seed by seed over the plain Q-Former."""
    scores = {
        arm: [json.loads((folder / f"{arm}_{seed}" / "scores.json").read_text()) for seed in seeds] for arm in arms
    }
    kinds = [kind for what in ABOUT.values() for kind in what]
    print(
        "\n| correct answers on test, % | trainable, thousand | style questions | content questions | "
        + " | ".join(kinds)
        + " |"
    )
    print("|---|" + "---|" * (len(kinds) + 3))
    base = scores["base"][0]
    baseline = [about(base, what, "question_only") for what in ABOUT] + [base["question_only"][kind] for kind in kinds]
    print("| question-only baseline | | " + " | ".join(f"{value:.1f}" for value in baseline) + " |")
    for arm, runs in scores.items():
        cells = [shown([about(run, what) for run in runs]) for what in ABOUT]
        cells += [f"{statistics.mean(run['correct'][kind] for run in runs):.1f}" for kind in kinds]
        print(f"| {arm} | {runs[0]['trainable'] / 1000:.0f} | " + " | ".join(cells) + " |")
    if "plain" in scores:
        print("\nover the plain Q-Former, seed by seed, percentage points:")
        for arm in [arm for arm in arms if arm not in ("base", "plain")]:
            for what in ABOUT:
                gains = [about(run, what) - about(plain, what) for run, plain in zip(scores[arm], scores["plain"])]
                print(f"  {arm:6}{what:9}" + "  ".join(f"{gain:+.1f}" for gain in gains))


def shown(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} .. {max(values):.1f})"


if __name__ == "__main__":
    main()
