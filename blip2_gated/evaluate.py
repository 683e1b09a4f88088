"""Evaluate a model's answers on a split.

    python blip2_gated/evaluate.py --config artquest --checkpoint checkpoints/blip2_gated/best.pt [--split test]

images, questions -> losses (main, style hit, KL) and answers -> exact match, VQA accuracy, BLEU, ROUGE, style hit rate
by question type. --output_dir gets evaluation.json, predictions.jsonl and vqa_results.json, which VQA v2's evaluator
takes: skipped questions have an empty answer in it; with --limit it lacks the others, and the evaluator refuses it.
Data settings are those of training unless --config or flags like --data.root override them. Without answers
(--data.answer_column "", as of a public test split) there are predictions only.
"""

import sys
from json import dumps
from pathlib import Path
from typing import Any, Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from blip2_gated import config
from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__, config)

from accelerate import Accelerator
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader

from blip2_gated.checkpoint import load_gated
from blip2_gated.dataset import build_datasets, parse_samples, read_splits, table_of
from blip2_gated.metrics import QuestionOnlyBaseline, answer_samples, measure_answers, official_results
from blip2_gated.train import make_training_model
from blip2_gated.training_model import measure_loss
from blip2_gated.vqa_tables import VqaSample
from common.cli.errors import run_script
from common.cli.paths import find_from_root
from common.cli.settings import read_settings
from common.cli.tool_parser import tool
from common.text.files import write_json, write_jsonl
from common.training.device import choose_device
from common.training.skip_log import report_skipped

COLUMNS = {
    "exact_match": "exact",
    "vqa_accuracy": "VQA",
    "question_only": "question only",
    "bleu": "BLEU",
    "rougeL": "ROUGE-L",
    "style_hit_rate": "names a style",
    "style_accuracy": "the right one",
}


@tool
def main(
    *settings: str,  # of the data, over those of training: --config NAME, --data.root FOLDER, ...
    checkpoint: Path,  # best.pt, or a file of inference.py --export
    split: Literal["train", "val", "test"] = "val",
    limit: NonNegativeInt = 0,  # number of questions, evenly spread; 0 = all
    num_beams: PositiveInt = 5,  # of beam search
    max_new_tokens: PositiveInt = 10,  # maximum length of an answer
    batch_size: PositiveInt = 32,  # questions
    blip2: str = "",  # location of BLIP-2's weights, if not as in training
    efficientnet: str = "",  # location of the EfficientNet's weights, if not as in training
    output_dir: Path = Path("results/blip2_gated"),
    device: str = "auto",
    json: bool = False,  # print JSON instead of the table
) -> dict[str, Any]:
    torch_device = choose_device(device)
    model, content = load_gated(find_from_root(str(checkpoint)), torch_device, blip2, efficientnet)
    options = read_settings(config, list(settings), defaults={**content["settings"], "training_cache_features": False})
    splits, skipped = read_splits(options, [split])
    sets, skipped = build_datasets(options, splits, skipped, model, Accelerator(cpu=torch_device.type == "cpu"))
    dataset = sets[split]
    dataset.drop_broken()
    report_skipped(dataset.skipped.skipped, listed="")
    skipped |= dataset.skipped.skipped
    predictions = answer_samples(
        model, dataset, limit, batch_size, quiet=False, num_beams=num_beams, max_new_tokens=max_new_tokens
    )
    report = {"checkpoint": str(checkpoint), "data_root": options.data_root, "split": split, "skipped": len(skipped)}
    report["settings"] = content["settings"]  # of the training
    if options.data_answer_column:
        training_model = make_training_model(options, model).to(torch_device)
        loader = DataLoader(dataset, batch_size, collate_fn=dataset.collate)
        report["losses"] = measure_loss(training_model, loader, torch_device)
        baseline = None
        if Path(find_from_root(options.data_root), options.data_train_csv).is_file():
            baseline = QuestionOnlyBaseline(read_splits(options, ["train"])[0]["train"])
        report |= measure_answers(predictions, model.styles, baseline)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "evaluation.json", report)
    samples = [prediction.sample for prediction in predictions]
    if not limit:
        table, _, dataset_name, columns = table_of(options, split)
        samples = [sample for _, sample in parse_samples(table, dataset_name, columns) if isinstance(sample, VqaSample)]
    write_json(output_dir / "vqa_results.json", official_results(predictions, samples))
    write_jsonl(output_dir / "predictions.jsonl", (prediction.as_row() for prediction in predictions))
    print(dumps(report, indent=2, ensure_ascii=False) if json else format_report(report, output_dir))
    return report


def format_report(report: dict[str, Any], folder: Path) -> str:
    """The report as text for a terminal."""
    title = f"{report['split']} split of {report['data_root']}, {report['skipped']} skipped"
    if "losses" not in report:
        return f"{title}\npredictions: {folder}"
    lines = [
        title,
        "losses: " + "  ".join(f"{name} {value:.3f}" for name, value in report["losses"].items()),
        f"\n{'in %':14}{'questions':>10}" + "".join(f"   {head}" for head in COLUMNS.values()),
    ]
    for question_type, scores in {**report["by_type"], "all": report["all"]}.items():
        cells = {head: f"{scores[name]:.1f}" if name in scores else "" for name, head in COLUMNS.items()}
        numbers = "".join(f"   {cell:>{len(head)}}" for head, cell in cells.items())
        lines.append(f"{question_type:14}{scores['questions']:10}{numbers}")
    lines += ["", *(f"{COLUMNS.get(name, name)}: {definition}" for name, definition in report["definitions"].items())]
    return "\n".join([*lines, f"\nanswers and scores: {folder}"])


if __name__ == "__main__":
    run_script(main)
