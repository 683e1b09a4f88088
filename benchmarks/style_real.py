"""Discrimination of real drawing styles by the style encoder, seen and unseen ones.

    python benchmarks/style_real.py --data_dir STYLES --pretrained WEIGHTS [--only contents folds] [--epochs 8]

STYLES holds one folder per style with equal file names for equal contents. Two questions, each answered beside the
baselines of evaluate_style.py, in colour and in grey:
  contents: a tenth of the contents is held out, in all styles.
  folds:    two whole styles are held out, in alphabetical pairs, each pair once; the table is the mean over the pairs.
The model is always the one of the last epoch: held-out images choose nothing.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import evaluate_style
import train
from common.text.files import write_json
from dataset import find_samples, split_samples

SETTINGS = [
    "--model_name",
    "tf_efficientnet_lite0",
    "--image_size",
    "128",
    "--batch_size",
    "48",
    "--learning_rate",
    "1e-3",
    "--backbone_lr_scale",
    "0.3",
    "--warmup_steps",
    "20",
    "--device",
    "cpu",
]


def train_and_evaluate(args: argparse.Namespace, name: str, extra: list[str], only_names: list[str]) -> dict:
    """Train one model -> {'colour': results, 'grey': results, 'minutes': of training}."""
    folder = Path(args.work_dir) / name
    start = time.perf_counter()
    train.main(
        [
            *SETTINGS,
            "--data_dir",
            args.data_dir,
            "--pretrained",
            args.pretrained,
            "--epochs",
            str(args.epochs),
            "--checkpoint_dir",
            str(folder),
            "--log_dir",
            str(Path(args.work_dir) / "logs"),
            "--cache_dir",
            str(Path(args.work_dir) / "cache"),
            *extra,
        ]
    )
    minutes = (time.perf_counter() - start) / 60
    weights = str(folder / f"model_epoch_{args.epochs}.pth")
    report = evaluate_style.main(["--weights", weights, "--data_dir", args.data_dir, *only_names])
    return {"colour": report["colour"], "grey": report["grey"], "minutes": minutes}


def mean_over(folds: list[dict]) -> dict:
    """The mean of each number over folds of equal shape."""
    if isinstance(folds[0], dict):
        return {key: mean_over([fold[key] for fold in folds]) for key in folds[0] if all(key in fold for fold in folds)}
    return sum(folds) / len(folds)


def markdown(title: str, found: dict) -> str:
    lines = [
        f"**{title}**",
        "",
        "| | style AUC | P@1 | MAP@R | content AUC | P@1 | MAP@R |",
        "|---|---|---|---|---|---|---|",
    ]
    for look in ("colour", "grey"):
        for method, result in found[look].items():
            cells = [
                result[question].get(metric) for question in ("style", "content") for metric in evaluate_style.METRICS
            ]
            lines.append(f"| {method}, {look} | " + " | ".join("-" if c is None else f"{c:.3f}" for c in cells) + " |")
    return "\n".join(lines) + f"\n\nTraining took {found['minutes']:.1f} minutes."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", required=True, help="folder of style folders")
    parser.add_argument("--pretrained", required=True, help="weights for tf_efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=("contents", "folds"), default=("contents", "folds"))
    parser.add_argument("--work_dir", default="./results/style_real")
    args = parser.parse_args()

    samples = find_samples(args.data_dir)
    styles = sorted({sample.style for sample in samples})
    results = {}
    if "contents" in args.only:
        held = sorted({sample.name for sample in split_samples(samples, 0.1)[1]})
        results["contents"] = train_and_evaluate(args, "contents", [], ["--names", *held])
        print(markdown("Unseen contents, known styles", results["contents"]))
    if "folds" in args.only:
        folds = {}
        for first, second in zip(styles[::2], styles[1::2]):
            pair = [first, second]
            folds[" + ".join(pair)] = train_and_evaluate(
                args, "-".join(pair), ["--val_styles", *pair], ["--styles", *pair]
            )
            print(markdown(f"Held out: {first}, {second}", folds[" + ".join(pair)]))
        results["folds"] = folds
        print(markdown("Unseen styles, mean over the pairs", mean_over(list(folds.values()))))
    write_json(Path(args.work_dir) / "results.json", results)
    print(json.dumps({"written": str(Path(args.work_dir) / "results.json")}))


if __name__ == "__main__":
    main()
