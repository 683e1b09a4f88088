"""What the style vector adds to a small vision-language model on real drawings (examples/style_vlm.py).

    python benchmarks/style_vlm.py --emoji DIR --icons DIR --pretrained WEIGHTS [--seeds 0 1 2]

Each seed holds out other contents: of the emoji grid (emoji_grid.py; its unseen styles are not used), and a fifth of
the icons'. A style encoder is trained on the rest; then two language models, from scratch, read the patches of the
ImageNet tower, one of them with the style vector in front, and are tested on contents that neither has seen.
Finished trainings in --work_dir are kept.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import train
from benchmarks.emoji_grid import UNSEEN_SHARE, split_grid
from common.text.files import read_json, write_json
from examples import style_vlm

MODEL = "tf_efficientnet_lite0"
EPOCHS = {"emoji": 1, "icons": 2}  # of the style encoder, 120 to 130 steps
ARMS = {"patches and style vector": [], "patches alone": ["--no_style"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--emoji", type=Path, required=True, help="folder of contents.csv and the styles")
    parser.add_argument("--icons", type=Path, required=True, help="folder of icon families")
    parser.add_argument("--pretrained", required=True, help=f"weights of {MODEL}, ImageNet's")
    parser.add_argument("--steps", type=int, default=600, help="of the language model")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/style_vlm"))
    args = parser.parse_args()
    results_file = args.work_dir / "results.json"
    results = read_json(results_file) if results_file.exists() else {}
    for seed in args.seeds:
        for name, parts in (("emoji", split_emoji(args.emoji, seed)), ("icons", split_icons(args.icons, seed))):
            folder = args.work_dir / f"{name}_{seed}"
            for part, paths in zip(("train", "test"), parts):
                link_images(paths, folder / part)
            weights = train_encoder(args, folder, EPOCHS[name], seed)
            for arm, flags in ARMS.items():
                key = f"{name}/{arm}/{seed}"
                if key not in results:
                    started = time.time()
                    options = {"data_dir": folder / "train", "test_dir": folder / "test", "style_encoder": weights}
                    options |= {"tower": f"{MODEL}:{args.pretrained}", "steps": args.steps, "seed": seed}
                    scores = style_vlm.main([*(f"--{key}={value}" for key, value in options.items()), *flags])
                    results[key] = {**scores, "minutes": (time.time() - started) / 60}
                    write_json(results_file, results)
    print_table(results)


def split_emoji(folder: Path, seed: int) -> list[list[Path]]:
    parts = split_grid(folder, seed)
    return [[drawing.path for drawing in parts[part]] for part in ("training", "unseen contents")]


def split_icons(folder: Path, seed: int) -> list[list[Path]]:
    paths = sorted(folder.glob("*/*_img.png"))
    contents = sorted({path.name for path in paths})
    unseen = set(random.Random(seed).sample(contents, len(contents) // UNSEEN_SHARE))
    return [[path for path in paths if (path.name in unseen) == held_out] for held_out in (False, True)]


def link_images(paths: list[Path], folder: Path) -> None:
    for path in paths:
        link = folder / path.parent.name / path.name
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


def train_encoder(args: argparse.Namespace, folder: Path, epochs: int, seed: int) -> Path:
    weights = folder / "checkpoints" / f"model_epoch_{epochs}.pth"
    if not weights.exists():
        settings = {"data_dir": folder / "train", "checkpoint_dir": folder / "checkpoints", "log_dir": folder / "logs"}
        settings |= {"cache_dir": args.work_dir / "cache", "pretrained": args.pretrained, "model_name": MODEL}
        settings |= {"image_size": args.size, "epochs": epochs, "batch_size": 48, "learning_rate": 1e-3}
        settings |= {"backbone_lr_scale": 0.3, "warmup_steps": 20, "val_split": 0, "seed": seed}
        started = time.time()
        train.main([f"--{name}={value}" for name, value in settings.items()])
        print(f"{folder.name}: style encoder trained in {(time.time() - started) / 60:.1f} minutes", flush=True)
    return weights


def print_table(results: dict[str, dict[str, float]]) -> None:
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for key, scores in sorted(results.items()):
        name, arm, _ = key.split("/")
        rows.setdefault((name, arm), []).append(scores)
    for (name, arm), scores in rows.items():
        cells = []
        for kind in scores[0]:
            values = np.array([score[kind] for score in scores])
            cells.append(f"{kind} {values.mean():.3f} ± {values.std(ddof=len(values) > 1):.3f}")
        print(f"{name}, {arm}, {len(scores)} seeds: " + ", ".join(cells))


if __name__ == "__main__":
    main()
