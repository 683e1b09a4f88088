"""What an evaluation leaves: a report for people, JSON for programs, a line for every sample, two pictures."""

import html
import json
import platform
import re
from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib
import peft
import torch
import transformers

matplotlib.use("Agg")  # no screen needed
from matplotlib import pyplot as plt
from sklearn.metrics import roc_curve

from common.text.files import write_atomically, write_json, write_jsonl
from llava.backend import read_scoring_config
from llava.checkpoint import fingerprint

TITLES = {"score": "score, 1 to 10", "expected_score": "expected score, 1 to 10", "p_yes": "P(Yes)"}


def provenance(settings: Namespace, analyzer: Any) -> dict[str, Any]:
    """What has to be the same for the same numbers."""
    local = getattr(analyzer, "model", None)
    return {
        "model": settings.model_id,
        "adapter": settings.adapter or None,
        "server": settings.server_url or None,
        "weights": fingerprint(local) if local is not None else None,
        "data": settings.data,
        "seed": settings.seed,
        "settings": vars(settings),
        "prompts": read_scoring_config(settings).prompts,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def write_report(folder: Path, summary: dict[str, Any], lines: list[dict], skipped: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", summary)
    write_jsonl(folder / "per_sample.jsonl", lines)
    write_jsonl(folder / "skipped.jsonl", ({"file": name, "reason": why} for name, why in skipped.items()))
    draw_scores(folder / "scores.png", lines)
    draw_groups(folder / "groups.png", summary)
    with write_atomically(folder / "report.md") as file:
        file.write(markdown(summary, lines).encode())


def markdown(summary: dict[str, Any], lines: list[dict]) -> str:
    """The report for people."""
    facts = json.dumps(summary["facts"], indent=1, ensure_ascii=False)
    parts = [
        f"# LLaVA evaluation\n\n{summary['samples']} images, {summary['pairs']} pairs of image and text, "
        f"{summary['left_out']} samples left out (skipped.jsonl).",
        "## Scores of matching against other texts",
        table(["", "ROC-AUC", "95 %", "rank correlation", "95 %", "pairs", "no score"], score_rows(summary)),
        "![scores](scores.png)\n\n## Descriptions",
        table(
            ["group", *COLUMNS],
            [
                [as_words(name), *(cell(numbers, key) for key in COLUMNS.values())]
                for name, numbers in {"all": summary, **summary["groups"]}.items()
            ],
        ),
        "![groups](groups.png)",
    ]
    if summary["traits"]:
        titles = ["trait", "accuracy", "95 %", "said", "always the most common", "samples"]
        parts += [
            "## Persona traits",
            table(
                titles,
                [
                    [
                        as_words(trait),
                        f"{one['accuracy']:.3f}",
                        span(one["interval"]),
                        f"{one['said']:.3f}",
                        f"{one['most_common']:.3f}",
                        str(one["samples"]),
                    ]
                    for trait, one in summary["traits"].items()
                ],
            ),
        ]
    examples = [
        f"- {as_words(line['image'])}\n  - text: {as_words(line['text'])}\n"
        f"  - description: {as_words(line['description'])}\n"
        f"  - score {line['score']}, expected {two_places(line['expected_score'])}: {as_words(line['analysis'])}"
        for line in lines
        if line["matching"]
    ]
    parts += ["## Examples", "\n".join(examples[:3]), f"## How to get these numbers\n\n```json\n{facts}\n```"]
    return "\n\n".join(parts) + "\n"


def as_words(text: str) -> str:
    """One line that Markdown shows as it is, whatever stands in it: names and texts come from data and models."""
    return re.sub(r"([\\`*_\[\]()#|!~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def two_places(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score_rows(summary: dict[str, Any]) -> list[list[str]]:
    found = {title: summary[f"{name}_quality"] for name, title in TITLES.items()}
    return [
        [
            title,
            f"{one['auc']:.3f}",
            span(one["interval"]),
            f"{one['spearman']:.3f}",
            span(one["spearman_interval"]),
            str(one["pairs"]),
            str(one["without_score"]),
        ]
        for title, one in found.items()
        if one["auc"] is not None
    ]


COLUMNS = {
    "BLEU": "bleu",
    "ROUGE-1": "rouge1",
    "ROUGE-2": "rouge2",
    "ROUGE-L": "rougeL",
    "Recall@1": "recall_at_1",
    "Recall@5": "recall_at_5",
    "Recall@10": "recall_at_10",
    "cosine": "cosine",
}


def cell(numbers: dict[str, Any], name: str) -> str:
    value = numbers.get(name)
    if value is None:
        return ""
    return f"{value['value']:.3f}" if isinstance(value, dict) else f"{value:.1f}"


def span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} .. {interval[1]:.3f}"


def draw_scores(path: Path, lines: list[dict]) -> None:
    """For each kind of score: how matching and other texts are spread, and the ROC curve."""
    figure, axes = plt.subplots(2, len(TITLES), figsize=(4 * len(TITLES), 6.4), layout="constrained")
    for (name, title), spread, curve in zip(TITLES.items(), *axes):
        limits, bins = ((0, 1), 20) if name == "p_yes" else ((0.5, 10.5), 20 if name == "expected_score" else 10)
        kept = [line for line in lines if line[name] is not None]
        for matching, label, colour in ((True, "matching", "#2e8b57"), (False, "other", "#c0504d")):
            values = [line[name] for line in kept if line["matching"] == matching]
            spread.hist(values, bins=bins, range=limits, alpha=0.6, label=f"{label} texts", color=colour)
        spread.set_title(title, fontsize=10)
        spread.set_ylabel("pairs")
        spread.legend(fontsize=8)
        curve.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        if len({line["matching"] for line in kept}) == 2:
            wrong, right, _ = roc_curve([line["matching"] for line in kept], [line[name] for line in kept])
            curve.plot(wrong, right, color="#1f4e8c")
        curve.set_xlabel("other texts above the threshold")
        curve.set_ylabel("matching texts above it")
        curve.set_aspect("equal")
    save(figure, path)


def draw_groups(path: Path, summary: dict[str, Any]) -> None:
    """ROUGE-L, Recall@5 and the AUC of the expected score, one bar per group."""
    groups = summary["groups"]
    chosen = dict(sorted(groups.items(), key=lambda item: -item[1].get("rougeL", 0))[:20])
    panels = {
        "ROUGE-L": [numbers.get("rougeL", 0) / 100 for numbers in chosen.values()],
        "keyword Recall@5": [numbers.get("recall_at_5", {}).get("value", 0) for numbers in chosen.values()],
        "AUC of expected score": [numbers["expected_score_quality"]["auc"] or 0 for numbers in chosen.values()],
    }
    height = 1.4 + 0.3 * len(chosen)
    figure, axes = plt.subplots(1, len(panels), figsize=(11, max(2.4, height)), layout="constrained", sharey=True)
    for axis, (title, values) in zip(axes, panels.items()):
        axis.barh([name[:30] for name in chosen], values, color="#1f4e8c")
        axis.set_xlim(0, 1)
        axis.set_title(title, fontsize=10)
    axes[0].invert_yaxis()  # shared
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
