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
from collections.abc import Callable, Collection
from functools import partial
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
FOLDERS = {"emoji": "folder of contents.csv and the styles", "icons": "folder of icon families"}


def main() -> None:
    args = read_flags(__doc__, FOLDERS, ".cache/style_vlm")
    for seed in args.seeds:
        for name in FOLDERS:
            folder, weights = train_encoder(args, name, seed)
            options = {"data_dir": folder / "train", "test_dir": folder / "test", "style_encoder": weights}
            options |= {"tower": f"{MODEL}:{args.pretrained}", "steps": args.steps, "seed": seed}
            for arm, flags in ARMS.items():
                words = [*(f"--{key}={value}" for key, value in options.items()), *flags]
                results = add_result(args.work_dir, f"{name}/{arm}/{seed}", partial(style_vlm.main, words))
    print_table(results)


def read_flags(description: str, folders: Collection[str], work_dir: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in folders:
        parser.add_argument(f"--{name}", type=Path, required=True, help=FOLDERS[name])
    parser.add_argument("--pretrained", required=True, help=f"weights of {MODEL}, ImageNet's")
    parser.add_argument("--steps", type=int, default=600, help="of the language model")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path(work_dir))
    return parser.parse_args()


def add_result(work_dir: Path, key: str, run: Callable[[], dict[str, float]]) -> dict[str, dict[str, float]]:
    """-> all results in work_dir, with that of `run` and its minutes, unless an earlier run left it there."""
    file = work_dir / "results.json"
    results = read_json(file) if file.exists() else {}
    if key not in results:
        started = time.time()
        results[key] = run() | {"minutes": (time.time() - started) / 60}
        write_json(file, results)
    return results


def split_emoji(folder: Path, seed: int) -> list[list[Path]]:
    parts = split_grid(folder, seed)
    return [[drawing.path for drawing in parts[part]] for part in ("training", "unseen contents")]


def split_icons(folder: Path, seed: int) -> list[list[Path]]:
    paths = sorted(folder.glob("*/*_img.png"))
    contents = sorted({path.name for path in paths})
    unseen = set(random.Random(seed).sample(contents, len(contents) // UNSEEN_SHARE))
    return [[path for path in paths if (path.name in unseen) == held_out] for held_out in (False, True)]


def train_encoder(args: argparse.Namespace, name: str, seed: int) -> tuple[Path, Path]:
    """-> folder with links to the images in train/ and test/, weights of the style encoder trained on the former."""
    folder, epochs = args.work_dir / f"{name}_{seed}", EPOCHS[name]
    split = split_emoji if name == "emoji" else split_icons
    for part, paths in zip(("train", "test"), split(getattr(args, name), seed)):
        for path in paths:
            link = folder / part / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
    weights = folder / "checkpoints" / f"model_epoch_{epochs}.pth"
    if not weights.exists():
        settings = {"data_dir": folder / "train", "checkpoint_dir": folder / "checkpoints", "log_dir": folder / "logs"}
        settings |= {"cache_dir": args.work_dir / "cache", "pretrained": args.pretrained, "model_name": MODEL}
        settings |= {"image_size": args.size, "epochs": epochs, "batch_size": 48, "learning_rate": 1e-3}
        settings |= {"backbone_lr_scale": 0.3, "warmup_steps": 20, "val_split": 0, "seed": seed}
        started = time.time()
        train.main([f"--{name}={value}" for name, value in settings.items()])
        print(f"{folder.name}: style encoder trained in {(time.time() - started) / 60:.1f} minutes", flush=True)
    return folder, weights


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
