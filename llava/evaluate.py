"""Evaluation of descriptions and scores.

    python llava/evaluate.py --model_id FOLDER --data samples.jsonl [--sentence_encoder FOLDER] [--num_negatives 1]

samples (image, matching text, references, keywords, traits), each also with texts of other images -> both stages
  descriptions   accuracy of the persona traits in them, keyword Recall@K, BLEU, ROUGE, semantic cosine
  scores         matching against other texts: ROC-AUC and rank correlation, with 95 % intervals over images
--output_dir receives report.md with its pictures, summary.json, per_sample.jsonl and skipped.jsonl. An interrupted
evaluation leaves its results there, and the same command resumes it.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early
from llava import config

if __name__ == "__main__":
    answer_early(__file__, config)

import numpy as np

from common.cli.errors import run_script
from common.cli.paths import find_inputs
from common.cli.settings import read_settings
from common.metrics.bootstrap import bootstrap_interval
from common.metrics.text import text_metric_settings, text_metrics
from common.training.skip_log import report_skipped
from llava.analysis import Analyzer
from llava.backend import INPUTS, open_analyzer, settings_hash
from llava.eval_dataset import EvaluationSample, draw_negatives, read_samples
from llava.metrics import RECALL_AT, recall_at, score_quality
from llava.report import describe_setup, write_report
from llava.request_io import FIELDS, Request, Results
from llava.sentence_encoder import SentenceEncoder
from llava.traits import extract_traits, trait_accuracy

SCORES = ("score", "expected_score", "p_yes")
MEANS = (*(f"recall_at_{k}" for k in RECALL_AT), "cosine")


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    find_inputs(settings, *INPUTS)
    if not settings.data:
        raise ValueError("--data: name a .jsonl or .csv of samples, or an AniPersonaCaps folder; or give --demo")
    samples, skipped = read_samples(settings.data)
    if 0 < settings.limit < len(samples):
        chosen = np.random.default_rng(settings.seed).permutation(len(samples))[: settings.limit]
        samples = [samples[index] for index in sorted(chosen)]
    encoder = SentenceEncoder(settings.sentence_encoder) if settings.sentence_encoder else None
    samples = draw_negatives(samples, settings.num_negatives, settings.seed)
    analyzer = open_analyzer(settings)
    setup = describe_setup(settings, analyzer)
    unfinished = Path(settings.output_dir) / f"unfinished_{settings_hash(settings, setup['weights'])}.jsonl"
    rows, failed = score_samples(analyzer, samples, unfinished)
    skipped |= failed
    report_skipped(skipped)
    if not rows:
        raise ValueError(f"{settings.data}: no sample could be scored; {next(iter(skipped.values()))}")
    if encoder:
        for row in (row for row in rows if row["matching"] and row["references"]):  # with the closest reference
            texts = [row["description"]] * len(row["references"])
            row["cosine"] = max(encoder.cosines(texts, row["references"]))
    summary = {
        "samples": sum(row["matching"] for row in rows),
        "skipped": len(skipped),
        "pairs": len(rows),
        **measure(rows, settings.seed),
        "groups": {
            name: measure([row for row in rows if row["group"] == name], settings.seed)
            for name in sorted({row["group"] for row in rows})
        },
        "setup": setup,
    }
    write_report(Path(settings.output_dir), summary, rows, skipped)
    unfinished.unlink()
    print(json.dumps(summary, indent=2, ensure_ascii=False) if settings.json else shorten(summary, settings))
    return summary


def score_samples(
    analyzer: Analyzer, samples: list[EvaluationSample], unfinished: Path
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """-> one row per image and text, in order; {failed sample: reason}. A sample is used with all its texts or none.

    unfinished: the file that keeps results until the evaluation ends.
    """
    pairs = [(sample, text) for sample in samples for text in (sample.text, *sample.negatives)]
    requests = [Request(str(number), sample.image, text) for number, (sample, text) in enumerate(pairs)]
    results = Results(unfinished, unfinished.stem, requests)
    if kept := len(requests) - len(results.pending):
        print(f"{kept} of {len(requests)} results are kept from an interrupted run", file=sys.stderr)
    try:
        pending = [(request.image, request.text) for request in results.pending]
        for position, result in analyzer.analyze_many(pending):
            key, image, text, _ = results.pending[position]
            results.add({"key": key, "image": image, "text": text, **result})
    finally:
        results.close()
    found = [results.finished[request.pair] for request in requests]
    failed = {sample.key: row["error"] for (sample, _), row in zip(pairs, found) if "error" in row}
    rows = [
        {
            "key": sample.key,
            "image": sample.image,
            "group": sample.group,
            "matching": text == sample.text,
            "text": text,
            **{name: value for name, value in row.items() if name not in FIELDS},
            **(compare_description(sample, row["description"]) if text == sample.text else {}),
        }
        for (sample, text), row in zip(pairs, found)
        if sample.key not in failed
    ]
    return rows, failed


def compare_description(sample: EvaluationSample, description: str) -> dict[str, Any]:
    """What is known of a sample, with what its description says."""
    return {
        "references": list(sample.references),
        "keywords": list(sample.keywords),
        "true_traits": extract_traits(" ".join(sample.references)) if sample.traits is None else sample.traits,
        "predicted_traits": extract_traits(description),
        **{f"recall_at_{k}": recall_at(description, sample.keywords, k) for k in RECALL_AT},
    }


def measure(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """All metrics of some rows; those for which references or keywords are missing are absent."""
    described = [row for row in rows if row["matching"]]
    predicted, true = ([row[name] for row in described] for name in ("predicted_traits", "true_traits"))
    metrics: dict[str, Any] = {"traits": trait_accuracy(predicted, true)}
    for name in MEANS:
        if values := [row[name] for row in described if row.get(name) is not None]:
            interval = bootstrap_interval(values, top=None if name == "cosine" else 1.0, seed=seed)
            metrics[name] = {"value": float(np.mean(values)), "interval": interval}
    if referenced := [row for row in described if row["references"]]:
        references = [row["references"] for row in referenced]
        metrics |= text_metrics([row["description"] for row in referenced], references)
        metrics["text_metric_settings"] = text_metric_settings(references)
    for name in SCORES:
        metrics[f"{name}_quality"] = score_quality(
            *([row[key] for row in rows] for key in (name, "matching", "image")), seed=seed
        )
    return metrics


def shorten(summary: dict[str, Any], settings: Namespace) -> str:
    """The most important numbers, for a terminal."""
    lines = [f"{summary['samples']} images, {summary['pairs']} pairs of image and text"]
    for name in SCORES:
        quality = summary[f"{name}_quality"]
        if quality["auc"] is not None:
            low, high = quality["interval"]
            lines.append(
                f"AUC of {name:15}{quality['auc']:.3f} ({low:.3f} .. {high:.3f}), "
                f"rank correlation {quality['spearman']:.3f}, {quality['without_score']} without a score"
            )
    lines += [f"{name:22}{summary[name]:.1f}" for name in ("bleu", "rouge1", "rouge2", "rougeL") if name in summary]
    lines += [f"{name:22}{summary[name]['value']:.3f}" for name in MEANS if name in summary]
    lines += [
        f"accuracy, {trait:12}{result['accuracy']:.3f} of {result['samples']}, most common {result['most_common']:.3f}"
        for trait, result in summary["traits"].items()
    ]
    return "\n".join([*lines, f"\nreport, all samples and plots are in {settings.output_dir}"])


if __name__ == "__main__":
    run_script(main)
