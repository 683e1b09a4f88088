"""How good are a model's answers on a split?

    python blip2_gated/evaluate.py --config artquest --checkpoint checkpoints/blip2_gated/best.pt [--split test]

images, questions -> losses (main, style hit, KL) and answers -> exact match, VQA accuracy, BLEU, ROUGE, style hit rate
by type of question. --output_dir gets evaluation.json, predictions.jsonl and vqa_results.json (VQAv2's format).
Data settings are those of training unless --config or flags like --data.root say otherwise.
"""

import argparse
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from accelerate import Accelerator
from torch.utils.data import DataLoader

from blip2_gated import config
from blip2_gated.checkpoint import load_gated
from blip2_gated.data import prepare_data, read_splits
from blip2_gated.generate_answers import answer_samples
from blip2_gated.metrics import Answered, QuestionOnlyBaseline, as_line, measure_answers
from blip2_gated.train import learner_of
from blip2_gated.training_model import measure_loss
from common.cli.errors import run_script
from common.cli.settings import read_settings
from common.text.files import write_atomically, write_json
from common.training.device import choose_device

SHOWN = {
    "exact_match": "exact",
    "vqa_accuracy": "VQA",
    "blind": "without looking",
    "bleu": "BLEU",
    "rougeL": "ROUGE-L",
    "style_hit_rate": "names a style",
    "style_accuracy": "the right one",
}


def main(argv: list[str]) -> dict[str, Any]:
    args, rest = read_arguments(argv)
    device = choose_device(args.device)
    model, content = load_gated(args.checkpoint, device, args.blip2, args.efficientnet)
    settings = data_settings(content["settings"], rest)
    splits, skipped = read_splits(settings, [args.split])
    sets, skipped = prepare_data(settings, splits, skipped, model, Accelerator(cpu=device.type == "cpu"))
    dataset = sets[args.split]
    loader = DataLoader(dataset, args.batch_size, collate_fn=dataset.collate)
    losses = measure_loss(learner_of(settings, model).to(device), loader, device)
    answered = answer_samples(
        model,
        dataset,
        args.limit,
        args.batch_size,
        quiet=False,
        num_beams=args.num_beams,
        max_new_tokens=args.max_new_tokens,
    )
    report = {
        "checkpoint": str(args.checkpoint),
        "data_root": settings.data_root,
        "split": args.split,
        "left_out": len(skipped),
        "losses": losses,
        **measure_answers(answered, model.styles, blind_guess(settings)),
    }
    write_results(args.output_dir, report, answered)
    print(json.dumps(report, indent=2, ensure_ascii=False) if args.json else format_report(report, args.output_dir))
    return report


def read_arguments(argv: list[str]) -> tuple[Namespace, list[str]]:
    """-> this script's own arguments, the settings among them."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="best.pt, or a file of inference.py --export")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"), help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=0, help="only so many questions, evenly spread; 0 = all")
    parser.add_argument("--num_beams", type=int, default=5, help="beams of the search; default: %(default)s")
    parser.add_argument("--max_new_tokens", type=int, default=10, help="length of an answer; default: %(default)s")
    parser.add_argument("--batch_size", type=int, default=32, help="questions at once; default: %(default)s")
    parser.add_argument("--blip2", default="", help="where BLIP-2's weights lie now, if not as in training")
    parser.add_argument("--efficientnet", default="", help="where the EfficientNet's weights lie now")
    parser.add_argument("--output_dir", type=Path, default=Path("results/blip2_gated"), help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    try:
        args, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    if min(args.batch_size, args.num_beams, args.max_new_tokens) < 1 or args.limit < 0:
        raise ValueError("--batch_size, --num_beams, --max_new_tokens: expected 1 or more; --limit: 0 or more")
    return args, rest


def data_settings(trained: dict[str, Any], rest: list[str]) -> Namespace:
    """The settings of training, with what this command line says on top; features are not kept for one look."""
    settings = read_settings(config, rest, given={**trained, "training_cache_features": False})
    settings.demo = bool(trained["demo"])
    return settings


def blind_guess(settings: Namespace) -> QuestionOnlyBaseline | None:
    """Of the training table; None where that is not there."""
    if not (Path(settings.data_root) / settings.data_train_csv).is_file():
        return None
    splits, _ = read_splits(settings, ["train"])
    return QuestionOnlyBaseline(splits["train"])


def write_results(folder: Path, report: dict[str, Any], answered: list[Answered]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", report)
    write_json(folder / "vqa_results.json", [{"question_id": one.number, "answer": one.prediction} for one in answered])
    with write_atomically(folder / "predictions.jsonl") as file:
        for one in answered:
            file.write((json.dumps(as_line(one), ensure_ascii=False) + "\n").encode())


def format_report(report: dict[str, Any], folder: Path) -> str:
    """The report as text for a terminal."""
    losses = "  ".join(f"{name} {value:.3f}" for name, value in report["losses"].items())
    lines = [f"{report['split']} split of {report['data_root']}, {report['left_out']} left out", f"losses: {losses}"]
    lines.append(f"\n{'in %':14}{'questions':>10}" + "".join(f"   {title}" for title in SHOWN.values()))
    for kind, scores in {**report["by_type"], "all": report["all"]}.items():
        cells = {title: f"{scores[name]:.1f}" if name in scores else "" for name, title in SHOWN.items()}
        numbers = "".join(f"   {cell:>{len(title)}}" for title, cell in cells.items())
        lines.append(f"{kind:14}{scores['questions']:10}{numbers}")
    return "\n".join([*lines, f"\nevery answer and the numbers are in {folder}"])


if __name__ == "__main__":
    run_script(main)
