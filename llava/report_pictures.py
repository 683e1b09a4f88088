"""Pictures of an evaluation's report: its scores, its groups, and the images whose texts were scored worst.

rows of llava/evaluate.py, one per image and text -> scores.png, groups.png, worst.png
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from common.training.plots import legend_above, panel_figure, readable, save_figure

TITLES = {"score": "score, 1 to 10", "expected_score": "expected score, 1 to 10", "p_yes": "P(Yes)"}
BINS = {"score": (0.5, 10.5, 10), "expected_score": (0.5, 10.5, 20), "p_yes": (0, 1, 20)}
MATCHING, OTHER = "#2e8b57", "#c0504d"
MAX_GROUPS, MAX_WORST = 20, 6


class Judgement(NamedTuple):
    """An image's scores: the row of its matching text, and that of the other text with the highest score, if any."""

    margin: float  # of the matching text's score over the other's
    matching: dict[str, Any]
    other: dict[str, Any] | None


def worst_judgements(rows: list[dict], name: str) -> list[Judgement]:
    """All images that have scores of this kind, worst first."""
    judgements = []
    for own in (row for row in rows if row["matching"] and row[name] is not None):
        others = [row for row in rows if row["key"] == own["key"] and not row["matching"] and row[name] is not None]
        other = max(others, key=lambda row: row[name], default=None)
        judgements.append(Judgement(own[name] - (other[name] if other else 0), own, other))
    return sorted(judgements, key=lambda judgement: judgement.margin)


def best_kind(rows: list[dict]) -> str:
    """The finest kind of score that there is: the expected one, P(Yes), the stated one."""
    return next((name for name in ("expected_score", "p_yes") if any(row[name] is not None for row in rows)), "score")


@readable
def draw_scores(path: Path, rows: list[dict], summary: dict[str, Any]) -> None:
    """For each kind of score the histograms of matching and other texts, and the ROC curve with its area."""
    kinds = [name for name in TITLES if any(row[name] is not None for row in rows)]
    figure, axes = panel_figure(2 * max(1, len(kinds)), (3.7, 3.3))
    for name, spread, curve in zip(kinds, axes[::2], axes[1::2]):
        low, high, bins = BINS[name]
        scored = [row for row in rows if row[name] is not None]
        for matching, label, colour in ((True, "matching", MATCHING), (False, "other", OTHER)):
            values = [row[name] for row in scored if row["matching"] == matching]
            spread.hist(
                values, bins=bins, range=(low, high), alpha=0.6, label=f"{len(values)} {label} texts", color=colour
            )
        spread.set_ylabel("pairs")
        legend_above(spread, TITLES[name])
        quality = summary[f"{name}_quality"]
        if quality["auc"] is not None:
            wrong, right, _ = roc_curve([row["matching"] for row in scored], [row[name] for row in scored])
            curve.plot(wrong, right, label=f"AUC {quality['auc']:.3f}")
        curve.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance 0.5")
        curve.set(xlabel="other texts above a threshold", ylabel="matching texts above it", aspect="equal")
        legend_above(curve, "ROC")
    save_figure(figure, path)


@readable
def draw_groups(path: Path, rows: list[dict], summary: dict[str, Any]) -> None:
    """ROUGE-L, Recall@5 and the AUC of the expected score, one bar per group with its number of images."""
    counts = Counter(row["group"] for row in rows if row["matching"])
    chosen = dict(sorted(summary["groups"].items(), key=lambda item: item[1].get("rougeL", 0))[-MAX_GROUPS:])
    labels = [f"{name[:24]} ({counts[name]})" for name in chosen]
    panels = {
        "ROUGE-L": [numbers["rougeL"] / 100 if "rougeL" in numbers else None for numbers in chosen.values()],
        "keyword R@5": [numbers.get("recall_at_5", {}).get("value") for numbers in chosen.values()],
        "AUC, expected": [numbers["expected_score_quality"]["auc"] for numbers in chosen.values()],
    }
    panels = {title: values for title, values in panels.items() if any(value is not None for value in values)}
    figure = Figure(figsize=(7.5, 1.5 + 0.3 * len(chosen)), layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    for axis, (title, values) in zip(axes, panels.items()):
        axis.barh(labels, [value or 0 for value in values])
        for position, value in enumerate(values):
            axis.text(0.02, position, "none" if value is None else f"{value:.2f}", va="center", fontsize=9)
        axis.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axis.set_title(title)
        if title.startswith("AUC"):
            axis.axvline(0.5, color="grey", linestyle=":")  # chance
    axes[0].set_ylabel("group (images)")
    if len(chosen) < len(summary["groups"]):
        figure.suptitle(f"{len(chosen)} of {len(summary['groups'])} groups", fontsize="medium")
    save_figure(figure, path)


def draw_worst(path: Path, judgements: list[Judgement], name: str) -> None:
    """Each image above its matching text, and the other text that was preferred, with their scores."""
    cells = []
    for _, own, other in judgements:
        try:
            picture = open_image(own["image"])
        except (ValueError, OSError):  # lost since it was scored
            continue
        note = f"other, {other[name]:.2f}: {other['text']}" if other else ""
        cells.append(Cell([picture], f"true, {own[name]:.2f}: {own['text']}", note))
    if cells:
        save_picture(path, contact_sheet({f"{TITLES[name].partition(',')[0]} of texts, worst first": cells}))
