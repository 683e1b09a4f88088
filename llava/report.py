"""Files of an evaluation: report.md, summary.json, per_sample.jsonl, skipped.jsonl, and two plots."""

import html
import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import peft
import transformers
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from common.text.files import write_atomically, write_json, write_jsonl
from common.training.plots import save_figure
from common.training.run import provenance
from common.training.skip_log import write_skipped
from llava.analysis import Analyzer
from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import fingerprint

TITLES = {"score": "score, 1 to 10", "expected_score": "expected score, 1 to 10", "p_yes": "P(Yes)"}
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
TRAIT_COLUMNS = ["trait", "accuracy", "95 %", "predicted", "always the most common", "samples"]


def describe_setup(settings: Namespace, analyzer: Analyzer) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    return {
        "model": settings.model_id,
        "adapter": settings.adapter or None,
        "server": settings.server_url or None,
        "weights": fingerprint(analyzer.model) if isinstance(analyzer, LlavaAnalyzer) else None,
        "data": settings.data,
        "seed": settings.seed,
        "settings": vars(settings),
        "prompts": analyzer.scoring.prompts,
        **provenance(),
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def write_report(folder: Path, summary: dict[str, Any], rows: list[dict], skipped: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", summary)
    write_jsonl(folder / "per_sample.jsonl", rows)
    write_skipped(folder / "skipped.jsonl", skipped)
    draw_scores(folder / "scores.png", rows)
    draw_groups(folder / "groups.png", summary)
    with write_atomically(folder / "report.md") as file:
        file.write(markdown(summary, rows).encode())


def markdown(summary: dict[str, Any], rows: list[dict]) -> str:
    qualities = {title: summary[f"{name}_quality"] for name, title in TITLES.items()}
    scores = [
        [title, quality["auc"], quality["interval"], quality["spearman"], quality["spearman_interval"]]
        + [quality["pairs"], quality["without_score"]]
        for title, quality in qualities.items()
        if quality["auc"] is not None
    ]
    groups = [
        [escape(name), *(cell(metrics, key) for key in COLUMNS.values())]
        for name, metrics in {"all": summary, **summary["groups"]}.items()
    ]
    traits = [
        [escape(trait)] + [result[key] for key in ("accuracy", "interval", "predicted", "most_common", "samples")]
        for trait, result in summary["traits"].items()
    ]
    examples = [
        f"- {escape(row['image'])}\n  - text: {escape(row['text'])}\n  - description: {escape(row['description'])}\n"
        f"  - score {row['score']}, expected {two_places(row['expected_score'])}: {escape(row['analysis'])}"
        for row in rows
        if row["matching"]
    ]
    parts = [
        f"# LLaVA evaluation\n\n{summary['samples']} images, {summary['pairs']} pairs of image and text, "
        f"{summary['skipped']} skipped samples (skipped.jsonl).",
        "## Scores of matching and other texts",
        table(["", "ROC-AUC", "95 %", "rank correlation", "95 %", "pairs", "no score"], scores),
        "![scores](scores.png)\n\n## Descriptions",
        table(["group", *COLUMNS], groups),
        "![groups](groups.png)",
        *(["## Persona traits", table(TRAIT_COLUMNS, traits)] if traits else []),
        "## Examples",
        "\n".join(examples[:3]),
        f"## Setup\n\n```json\n{json.dumps(summary['setup'], indent=1, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """One line that Markdown shows literally: names and texts come from data and models."""
    return re.sub(r"([\\`*_\[\]()#|!~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def two_places(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def table(titles: list[str], rows: list[list[Any]]) -> str:
    """Numbers with three places, intervals as 'low .. high'."""

    def show(value: Any) -> str:
        if isinstance(value, tuple | list):
            return " .. ".join(map(show, value))
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [titles, ["---"] * len(titles), *(map(show, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(metrics: dict[str, Any], name: str) -> float | str:
    value = metrics.get(name, "")
    return value["value"] if isinstance(value, dict) else f"{value:.1f}" if value != "" else ""


def draw_scores(path: Path, rows: list[dict]) -> None:
    """For each kind of score the histograms of matching and other texts, and the ROC curve."""
    figure = Figure(figsize=(4 * len(TITLES), 6.4), layout="constrained")
    axes = figure.subplots(2, len(TITLES))
    for (name, title), spread, curve in zip(TITLES.items(), *axes):
        limits, bins = ((0, 1), 20) if name == "p_yes" else ((0.5, 10.5), 20 if name == "expected_score" else 10)
        scored = [row for row in rows if row[name] is not None]
        for matching, label, colour in ((True, "matching", "#2e8b57"), (False, "other", "#c0504d")):
            values = [row[name] for row in scored if row["matching"] == matching]
            spread.hist(values, bins=bins, range=limits, alpha=0.6, label=f"{label} texts", color=colour)
        spread.set_title(title, fontsize=10)
        spread.set_ylabel("pairs")
        spread.legend(fontsize=8)
        curve.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        if len({row["matching"] for row in scored}) == 2:
            wrong, right, _ = roc_curve([row["matching"] for row in scored], [row[name] for row in scored])
            curve.plot(wrong, right, color="#1f4e8c")
        curve.set(xlabel="other texts above the threshold", ylabel="matching texts above it", aspect="equal")
    save_figure(figure, path)


def draw_groups(path: Path, summary: dict[str, Any]) -> None:
    """ROUGE-L, Recall@5 and the AUC of the expected score, one bar per group."""
    chosen = dict(sorted(summary["groups"].items(), key=lambda item: -item[1].get("rougeL", 0))[:20])
    panels = {
        "ROUGE-L": [numbers.get("rougeL", 0) / 100 for numbers in chosen.values()],
        "keyword Recall@5": [numbers.get("recall_at_5", {}).get("value", 0) for numbers in chosen.values()],
        "AUC of expected score": [numbers["expected_score_quality"]["auc"] or 0 for numbers in chosen.values()],
    }
    figure = Figure(figsize=(11, max(2.4, 1.4 + 0.3 * len(chosen))), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (title, values) in zip(axes, panels.items()):
        axis.barh([name[:30] for name in chosen], values, color="#1f4e8c")
        axis.set_xlim(0, 1)
        axis.set_title(title, fontsize=10)
    axes[0].invert_yaxis()  # shared
    save_figure(figure, path)
