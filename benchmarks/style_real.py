"""Discrimination of real drawing styles that training has not seen, compared with baselines and CSD's recipe.

    python benchmarks/style_real.py --domains DIR DIR ... --pretrained WEIGHTS [--epochs 4] [--only families 0 1]

A domain is a folder of style folders (emoji, icons, typefaces ...). Every image of the test styles is a query among all
others of its domain. Splits:
  families   a third of each domain's families is held out (fold 1 of 3; --fold chooses another)
  N          pair N of --pairs: trained on the domains before the slash, tested on the others
The model is that of the last epoch: held-out styles choose nothing. Finished trainings in --work_dir are kept.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import evaluate_style
import train
from benchmarks.csd_style import train_csd
from benchmarks.style_splits import family_folds, link_styles, styles_of
from common.images.cache import CACHE_SCALE, ImageCache
from common.text.files import read_json, write_json
from dataset import StyleDataset, find_samples
from evaluate_style import METRICS
from style_encoder import load_encoder
from targets import TargetShapes

MODEL, SIZE, BATCH = "tf_efficientnet_lite0", 128, 48
CPU = torch.device("cpu")


def train_encoder(args: argparse.Namespace, data_dir: Path, folder: Path) -> Path:
    """-> the weights of the last epoch"""
    weights = folder / "checkpoints" / f"model_epoch_{args.epochs}.pth"
    if not weights.exists():
        options = {
            "model_name": MODEL,
            "image_size": SIZE,
            "batch_size": BATCH,
            "learning_rate": 1e-3,
            "backbone_lr_scale": 0.3,
            "warmup_steps": 50,
            "val_split": 0,
            "device": "cpu",
            "data_dir": data_dir,
            "pretrained": args.pretrained,
            "epochs": args.epochs,
            "checkpoint_dir": folder / "checkpoints",
            "log_dir": folder / "logs",
            "cache_dir": Path(args.work_dir) / "cache",
        }
        train.main([f"--{name}={value}" for name, value in options.items()] + args.options)
    return weights


def measure(args: argparse.Namespace, name: str, training: list[Path], questions: dict[str, list[Path]]) -> dict:
    """Train on some style folders, test on others -> {'minutes': {method: ...}, question: evaluate_style's report}"""
    folder = Path(args.work_dir) / name
    data_dir = link_styles(training, folder / "train")
    minutes, start = {}, time.perf_counter()
    weights = train_encoder(args, data_dir, folder)
    minutes["style encoder"] = (time.perf_counter() - start) / 60
    csd = None
    if args.csd:
        start = time.perf_counter()
        steps = load_encoder(weights, CPU)[1]["step"]
        csd = train_csd(data_dir, MODEL, args.pretrained, SIZE, BATCH, steps, Path(args.work_dir) / "cache")
        minutes["CSD's recipe"] = (time.perf_counter() - start) / 60
    found = {"minutes": minutes, "trained_on": len(training)}
    for question, folders in questions.items():
        asked = link_styles(folders, folder / "asked" / question)
        found[question] = evaluate_style.main([f"--weights={weights}", f"--data_dir={asked}", "--csls"])
        if csd:
            for look in ("colour", "grey"):
                found[question][look]["CSD's recipe"] = evaluate_style.score(
                    *encode_csd(csd, asked, look == "grey"), per_style=True
                )
    return found


@torch.inference_mode()
def encode_csd(csd: torch.nn.Module, data_dir: Path, grey: bool) -> tuple[torch.Tensor, StyleDataset]:
    samples = find_samples(data_dir)
    images = ImageCache(round(CACHE_SCALE * SIZE))
    dataset = StyleDataset(samples, images, SIZE, TargetShapes(), grey=grey)
    batches = torch.utils.data.DataLoader(dataset, 64)
    return torch.cat([csd(batch["image"]) for batch in batches]), dataset


def markdown(name: str, found: dict) -> str:
    """Tables of one training: a domain each, a row per method."""
    minutes = ", ".join(f"{method} {value:.1f}" for method, value in found["minutes"].items())
    lines = [f"**{name}**: trained on {found['trained_on']} styles; minutes of training: {minutes}"]
    for question, report in found.items():
        if question in ("minutes", "trained_on"):
            continue
        styles, images = report["styles"], report["images"]
        lines += [
            "",
            f"*{question}, {styles}-way*, {images} images, P@1 by chance {report['chance_precision_at_1']:.3f}:",
            "",
            "| | AUC | P@1 | MAP@R | grey: AUC | P@1 | MAP@R | content AUC | conflict |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for method in sorted(report["colour"], key=lambda name: -report["colour"][name]["style"]["map_at_r"]):
            looks = [_named(report[look], method) for look in ("colour", "grey")]
            cells = [_cell(look["style"], metric) for look in looks for metric in METRICS]
            content, conflict = looks[0]["content"], looks[0]["style"].get("conflict")
            cells += [f"{content['auc']:.3f}" if content else "-", "-" if conflict is None else f"{conflict:.3f}"]
            lines.append(f"| {method.split(', w')[0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _named(results: dict, method: str) -> dict:
    """A method's scores; the weight in the name of a combination differs between looks."""
    return next(result for name, result in results.items() if name.split(", w")[0] == method.split(", w")[0])


def _cell(metrics: dict, name: str) -> str:
    bounds = metrics.get("interval", {}).get(name)
    return f"{metrics[name]:.3f}" + (f" ({bounds[0]:.2f}-{bounds[1]:.2f})" if bounds else "")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--domains", nargs="+", type=Path, required=True, help="folders of style folders")
    parser.add_argument("--pretrained", required=True, help="weights for tf_efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--pairs", nargs="*", default=["icons,typefaces", "emoji,desktop"], help="domains to train on")
    parser.add_argument("--names", nargs="*", default=[], help="names of --domains, where they are not their folders'")
    parser.add_argument("--only", nargs="*", help="families, 0, 1 ...: of the questions")
    parser.add_argument("--no_csd", dest="csd", action="store_false")
    parser.add_argument("--options", nargs="*", default=[], help="further flags of train.py, as --name=value")
    parser.add_argument("--work_dir", default="./results/style_real")
    args = parser.parse_args()

    domains = dict(zip(args.names or [folder.name for folder in args.domains], args.domains))
    plans: dict[str, tuple[list[Path], dict[str, list[Path]]]] = {}
    folds = {name: family_folds(styles_of(folder)) for name, folder in domains.items()}
    plans["families"] = (
        [
            domains[name] / style
            for name in domains
            for style in sorted(set(sum(folds[name], [])) - set(folds[name][args.fold]))
        ],
        {name: [domains[name] / style for style in folds[name][args.fold]] for name in domains},
    )
    for number, pair in enumerate(args.pairs):
        seen = pair.split(",")
        plans[str(number)] = (
            [domains[name] / style for name in seen for style in styles_of(domains[name])],
            {
                name: [folder / style for style in styles_of(folder)]
                for name, folder in domains.items()
                if name not in seen
            },
        )
    results_path = Path(args.work_dir) / "results.json"
    results = read_json(results_path) if results_path.exists() else {}
    for name in args.only or plans:
        results[name] = measure(args, name, *plans[name])
        write_json(results_path, results)
        print(markdown(name, results[name]), flush=True)


if __name__ == "__main__":
    main()
