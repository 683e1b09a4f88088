"""Files of an evaluation: report.md with its pictures, summary.json, per_sample.jsonl, skipped.jsonl."""

import html
import json
import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import peft
import transformers

from common.text.files import write_atomically, write_json, write_jsonl
from common.training.run import provenance
from common.training.skip_log import write_skipped
from llava.analysis import Analyzer
from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import fingerprint
from llava.report_pictures import (
    MAX_WORST,
    TITLES,
    Judgement,
    best_kind,
    draw_groups,
    draw_scores,
    draw_worst,
    worst_judgements,
)

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
    draw_scores(folder / "scores.png", rows, summary)
    draw_groups(folder / "groups.png", rows, summary)
    kind = best_kind(rows)
    worst = worst_judgements(rows, kind)[:MAX_WORST]
    draw_worst(folder / "worst.png", worst, kind)
    with write_atomically(folder / "report.md") as file:
        file.write(markdown(summary, worst, folder).encode())


def markdown(summary: dict[str, Any], worst: list[Judgement], folder: Path) -> str:
    """folder: of the report, which links to the images from there."""
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
    parts = [
        f"# LLaVA evaluation\n\n{summary['samples']} images, {summary['pairs']} pairs of image and text, "
        f"{summary['skipped']} skipped samples (skipped.jsonl).",
        "## Scores of matching and other texts",
        table(["", "ROC-AUC", "95 %", "rank correlation", "95 %", "pairs", "no score"], scores),
        "![scores](scores.png)",
        *(
            ["## Worst answers", "![worst answers](worst.png)", "\n".join(describe(item, folder) for item in worst)]
            * bool(worst)
        ),
        "## Descriptions",
        table(["group", *COLUMNS], groups),
        "![groups](groups.png)",
        *(["## Persona traits", table(TRAIT_COLUMNS, traits)] if traits else []),
        f"## Setup\n\n```json\n{json.dumps(summary['setup'], indent=1, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def describe(judgement: Judgement, folder: Path) -> str:
    """An image with both texts, what was said of them, and its description, as a list."""
    own, other = judgement.matching, judgement.other
    path = Path(os.path.relpath(own["image"], folder)).as_posix()
    lines = [f"- [{escape(own['image'])}](<{quote(path)}>)", f"  - description: {escape(own['description'])}"]
    for title, row in (("true", own), ("other", other)):
        if row:
            numbers = (
                f"score {row['score']}, expected {two_places(row['expected_score'])}, P(Yes) {two_places(row['p_yes'])}"
            )
            lines.append(f"  - {title} text: {escape(row['text'])}; {numbers}: {escape(row['analysis'])}")
    return "\n".join(lines)


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
