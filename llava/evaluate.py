"""How good are a model's descriptions and scores?

    python llava/evaluate.py --model_id FOLDER --data samples.jsonl [--sentence_encoder FOLDER] [--num_negatives 1]

samples (image, text that fits, references, keywords, traits), each also with texts of other images -> both stages
  descriptions   accuracy of the persona traits they say, keyword Recall@K, BLEU, ROUGE, semantic cosine
  scores         matching against other texts: ROC-AUC and rank correlation, with 95 % intervals over images
--output_dir gets report.md, summary.json, per_sample.jsonl, scores.png, groups.png; skipped.jsonl: what was left out.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from common.cli.errors import report_skipped, run_script
from common.cli.settings import read_settings
from common.metrics.bootstrap import bootstrap_interval
from common.metrics.text import text_scores
from llava import config
from llava.backend import open_analyzer
from llava.eval_dataset import EvaluationSample, draw_negatives, read_samples
from llava.metrics import RECALL_AT, recall_at, score_quality
from llava.report import provenance, write_report
from llava.sentence_encoder import SentenceEncoder
from llava.traits import extract_traits, trait_accuracy

SCORES = ("score", "expected_score", "p_yes")


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    if not settings.data:
        raise ValueError("--data: name a .jsonl or .csv of samples, or an AniPersonaCaps folder; or give --demo")
    samples, skipped = read_samples(settings.data)
    if 0 < settings.limit < len(samples):
        chosen = np.random.default_rng(settings.seed).permutation(len(samples))[: settings.limit]
        samples = [samples[place] for place in sorted(chosen.tolist())]
    encoder = SentenceEncoder(settings.sentence_encoder) if settings.sentence_encoder else None
    others = draw_negatives(samples, settings.num_negatives, settings.seed)
    analyzer = open_analyzer(settings)
    lines, failed = ask(analyzer, samples, others)
    skipped |= failed
    report_skipped(skipped)
    if not lines:
        raise ValueError(f"{settings.data}: not one sample could be asked about; {next(iter(skipped.values()))}")
    if encoder:
        add_cosines(lines, encoder)
    groups = sorted({line["group"] for line in lines if line["matching"]})
    summary = {
        "samples": sum(line["matching"] for line in lines),
        "left_out": len(skipped),
        "pairs": len(lines),
        **measure(lines, settings.seed),
        "groups": {name: measure([line for line in lines if line["group"] == name], settings.seed) for name in groups},
        "facts": provenance(settings, analyzer),
    }
    write_report(Path(settings.output_dir), summary, lines, skipped)
    print(json.dumps(summary, indent=2, ensure_ascii=False) if settings.json else short(summary, settings))
    return summary


def ask(
    analyzer: Any, samples: list[EvaluationSample], others: list[list[str]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """-> one line per image and text, in order; {sample that failed: why}. A sample is used whole or not at all."""
    pairs = [
        (place, text, not number)
        for place, (sample, wrong) in enumerate(zip(samples, others))
        for number, text in enumerate([sample.text, *wrong])
    ]
    found = dict(analyzer.analyze_many([(samples[place].image, text) for place, text, _ in pairs]))
    failed = {samples[pairs[at][0]].key: result["error"] for at, result in found.items() if "error" in result}
    lines = []
    for at, (place, text, matching) in enumerate(pairs):
        sample = samples[place]
        if sample.key in failed:
            continue
        line = {"key": sample.key, "image": sample.image, "group": sample.group, "matching": matching, "text": text}
        line |= found[at]
        if matching:
            line |= facts_of(sample, line["description"])
        lines.append(line)
    return lines, failed


def facts_of(sample: EvaluationSample, description: str) -> dict[str, Any]:
    """What is known of a sample beside what its description says."""
    true = sample.traits
    if true is None:
        true = extract_traits(" ".join(sample.references))
    recalls = {f"recall_at_{k}": recall_at(description, sample.keywords, k) for k in RECALL_AT}
    return {
        "references": list(sample.references),
        "keywords": list(sample.keywords),
        "traits_true": true,
        "traits_said": extract_traits(description),
        **recalls,
    }


def add_cosines(lines: list[dict[str, Any]], encoder: SentenceEncoder) -> None:
    """Of a description and the closest of its references."""
    for line in lines:
        if line["matching"] and line["references"]:
            texts = [line["description"]] * len(line["references"])
            line["cosine"] = max(encoder.cosines(texts, line["references"]))


def measure(lines: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """All numbers of some lines; what cannot be measured, for want of references or keywords, is left out."""
    described = [line for line in lines if line["matching"]]
    numbers: dict[str, Any] = {
        "traits": trait_accuracy([one["traits_said"] for one in described], [one["traits_true"] for one in described])
    }
    for name in (*(f"recall_at_{k}" for k in RECALL_AT), "cosine"):
        values = [line[name] for line in described if line.get(name) is not None]
        if values:
            top = None if name == "cosine" else 1.0
            numbers[name] = {
                "value": float(np.mean(values)),
                "interval": bootstrap_interval(values, top=top, seed=seed),
            }
    if referenced := [line for line in described if line["references"]]:
        numbers |= text_scores([one["description"] for one in referenced], [one["references"] for one in referenced])
    for name in SCORES:
        columns = ([line[key] for line in lines] for key in (name, "matching", "image"))
        numbers[f"{name}_quality"] = score_quality(*columns, seed=seed)
    return numbers


def short(summary: dict[str, Any], settings: Namespace) -> str:
    """The most important numbers, for a terminal."""
    shown = [f"{summary['samples']} images, {summary['pairs']} pairs of image and text"]
    for name in SCORES:
        quality = summary[f"{name}_quality"]
        if quality["auc"] is not None:
            low, high = quality["interval"]
            shown.append(
                f"AUC of {name:15}{quality['auc']:.3f} ({low:.3f} .. {high:.3f}), "
                f"rank correlation {quality['spearman']:.3f}, {quality['without_score']} without"
            )
    shown += [f"{name:22}{summary[name]:.1f}" for name in ("bleu", "rouge1", "rouge2", "rougeL") if name in summary]
    for name in (*(f"recall_at_{k}" for k in RECALL_AT), "cosine"):
        if name in summary:
            shown.append(f"{name:22}{summary[name]['value']:.3f}")
    shown += [
        f"accuracy, {trait:12}{found['accuracy']:.3f} of {found['samples']}, the most common {found['most_common']:.3f}"
        for trait, found in summary["traits"].items()
    ]
    return "\n".join([*shown, f"\nreport, every sample and pictures are in {settings.output_dir}"])


if __name__ == "__main__":
    run_script(main)
