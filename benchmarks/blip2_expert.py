"""BLIP2-gated with different style experts: random, ImageNet and style-trained EfficientNet, on real drawings.

    python benchmarks/blip2_expert.py --data_dir FOLDER --efficientnet_weights FILE [--few_shot FOLDER ...] [--seeds 0]

FOLDER is that of blip2_real.py; its images are named ../styles/STYLE/CONTENT_img.png. A fifth of the contents, drawn by
seed, is in no training and no validation: all questions about their drawings are the part `unseen` contents; those of
the test table about other contents, in drawings that are not in training either, are the part `seen`. For each seed

    style encoder   train.py on the drawings of the training questions, from ImageNet's weights
    base            a small BLIP-2 from scratch on one half of the training drawings, as in blip2_real.py
    arms            from the base, on the other half, in equal steps: the ungated Q-Former; frozen Q-Formers with gates
                    conditioned on each expert
    closed          the trained arm with the style encoder, answering with its gates closed

--few_shot: folders of STYLE/CONTENT_img.png that nothing was trained on. The features that an arm hands to the language
model (mean of its image tokens for a question about style), minus their mean over the references, are classified by the
nearest prototype among all styles of a folder; references and queries have different contents.
Finished parts are kept in --work_dir and skipped the next time.
"""

import argparse
import contextlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import train as style_train
from benchmarks.blip2_expert_scores import Rows, check_base, judge, judge_baseline, judge_style_vectors, report
from benchmarks.blip2_real import (
    CONFIG,
    arm_flags,
    base_flags,
    read_questions,
    run_flags,
    save_base,
    spread,
    write_table,
)
from blip2_gated import train
from common.text.files import write_json

UNSEEN_SHARE = 5  # one content in so many
IMAGE_SIZE = 96  # pixels, of every expert: BLIP-2 here sees no more
ARMS = {  # flags, expert
    "ungated": (["--model.gating.type", "none", "--model.train", "qformer"], "imagenet"),
    "film_random": (["--model.gating.type", "film"], "random"),
    "film_imagenet": (["--model.gating.type", "film"], "imagenet"),
    "film_style_encoder": (["--model.gating.type", "film"], "style_encoder"),
    "kv_style_encoder": (["--model.gating.type", "kv"], "style_encoder"),
}
WITH_CLOSED = "film_style_encoder"  # the arm that also answers with closed gates


def main() -> None:
    args = read_arguments()
    folders = [Path(args.work_dir).resolve() / f"seed_{seed}" for seed in args.seeds]
    for seed, folder in zip(args.seeds, folders):
        run_seed(args, folder, seed)
    closed = [f"{WITH_CLOSED}/closed"] if WITH_CLOSED in args.arms else []
    print(report(folders, ["question_only", "base", *args.arms, *closed]))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--efficientnet_weights", required=True, help="of tf_efficientnet_lite0, ImageNet's")
    parser.add_argument("--few_shot", nargs="*", default=[], type=Path, help="folders of STYLE/CONTENT_img.png")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--base_epochs", type=int, default=5)
    parser.add_argument("--warm_start_steps", type=int, default=400, help="of the base, to see and to read")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--encoder_epochs", type=int, default=3)
    parser.add_argument("--val_questions", type=int, default=600, help="of the validation table, evenly spread")
    parser.add_argument("--work_dir", default="./.cache/blip2_expert")
    return parser.parse_args()


def run_seed(args: argparse.Namespace, folder: Path, seed: int) -> None:
    training, parts = write_tables(args, folder, seed)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    base, encoder = folder / "base", folder / "style_encoder"
    once(encoder, partial(style_train.main, encoder_flags(args, folder, encoder, seed)))
    once(
        base, partial(train.main, [*base_flags(args, folder, seed), *run_flags(folder, base)]), partial(save_base, base)
    )
    weights = {"random": "false", "imagenet": args.efficientnet_weights, "style_encoder": str(encoder / "best.pth")}
    data, few_shot = Path(args.data_dir), args.few_shot
    judge_baseline(folder / "question_only", training, parts)
    judge(base, data, parts, few_shot)
    check_base(folder)
    for arm in args.arms:
        run, (flags, expert) = folder / arm, ARMS[arm]
        flags = [*arm_flags(args, folder, base, seed, weights[expert], IMAGE_SIZE), *run_flags(folder, run), *flags]
        once(run, partial(train.main, flags))
        judge(run, data, parts, few_shot, with_closed=arm == WITH_CLOSED)
    judge_style_vectors(encoder, few_shot)


def write_tables(args: argparse.Namespace, folder: Path, seed: int) -> tuple[Rows, dict[str, Rows]]:
    """Tables, and the training drawings for train.py -> rows of the arms' training, rows of both parts of the test."""
    data = Path(args.data_dir)
    tables = read_questions(data)
    contents = sorted({content_of(row[0]) for rows in tables.values() for row in rows})
    unseen = set(random.Random(seed).sample(contents, len(contents) // UNSEEN_SHARE))
    parts = {
        "seen": [row for row in tables["test"] if content_of(row[0]) not in unseen],
        "unseen": [row for rows in tables.values() for row in rows if content_of(row[0]) in unseen],
    }
    kept = {
        name: [row for row in tables[name] if content_of(row[0]) not in unseen] for name in ("half_0", "half_1", "val")
    }
    drawings = {row[0] for row in kept["half_0"] + kept["half_1"]}
    kept["val"] = spread(kept["val"], args.val_questions)
    for name, rows in kept.items():
        write_table(folder / f"{name}.csv", rows)
    for drawing in sorted(drawings):
        target = folder / "drawings" / Path(drawing).parent.name / Path(drawing).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / drawing, target)
    return kept["half_1"], parts


def content_of(image: str) -> str:
    return Path(image).name


def once(run: Path, start: Callable[[], object], then: Callable[[], None] = lambda: None) -> None:
    """Training, unless it is finished; its output goes to a file, its duration to minutes.json, written last."""
    if (run / "minutes.json").is_file():
        return
    run.mkdir(parents=True, exist_ok=True)
    before = time.process_time()
    with (run / "output.log").open("w") as log, contextlib.redirect_stdout(log):
        start()
    then()
    minutes = (time.process_time() - before) / 60
    write_json(run / "minutes.json", {"cpu_minutes": minutes})
    print(f"{run.parent.name}, {run.name}: {minutes:.1f} minutes of processor time", flush=True)


def encoder_flags(args: argparse.Namespace, folder: Path, run: Path, seed: int) -> list[str]:
    """As in style_real.py."""
    options = {
        "model_name": "tf_efficientnet_lite0",
        "pretrained": args.efficientnet_weights,
        "image_size": IMAGE_SIZE,
        "batch_size": 48,
        "learning_rate": 1e-3,
        "backbone_lr_scale": 0.3,
        "warmup_steps": 50,
        "epochs": args.encoder_epochs,
        "device": "cpu",
        "seed": seed,
        "data_dir": folder / "drawings",
        "checkpoint_dir": run,
        "log_dir": folder / "logs",
        "cache_dir": Path(args.work_dir).resolve() / "style_cache",
    }
    return [f"--{name}={value}" for name, value in options.items()]


if __name__ == "__main__":
    main()
