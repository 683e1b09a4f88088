"""Plots of retrieval: recall per direction, cosines of true and false pairs."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.metrics.retrieval import RECALL_AT
from common.training.plots import save_figure

TRUE, FALSE, CHANCE = "#1a73b7", "#d1782f", "#3c4043"
DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}


def plot_metrics(
    path: str | Path, retrieval: dict[str, dict[str, Any]] | None = None, similarity: dict[str, Any] | None = None
) -> None:
    """Bars of recall (clip.metrics.measure_retrieval) and histograms of cosines (common.metrics.retrieval
    .similarity_statistics), one of them or both side by side."""
    panels = [panel for panel in ((recall_panel, retrieval), (similarity_panel, similarity)) if panel[1]]
    figure = Figure(figsize=(1.2 + 5.2 * len(panels), 3.8), layout="constrained")
    for axis, (draw, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        draw(axis, values)
    save_figure(figure, path)


def recall_panel(axis: Axes, metrics: dict[str, dict[str, Any]]) -> None:
    """metrics: {'i2t_r1': {'value', 'interval' (low, high), 'chance'}, ..., 'rsum': ...}, all in percent."""
    highest = 0.0
    for direction, offset, colour in zip(DIRECTIONS, (-0.2, 0.2), (TRUE, FALSE)):
        recalls = {group + offset: metrics[f"{direction}_r{k}"] for group, k in enumerate(RECALL_AT)}
        values = [recall["value"] for recall in recalls.values()]
        axis.bar(list(recalls), values, 0.38, color=colour, label=DIRECTIONS[direction])
        for x, recall in recalls.items():
            value, (low, high) = recall["value"], recall["interval"]
            # The value may lie outside of its percentile interval; an error bar cannot have a negative length.
            axis.errorbar(
                x, value, [[max(value - low, 0)], [max(high - value, 0)]], color=CHANCE, capsize=3, linewidth=1
            )
            top = max(high, value, recall["chance"])
            axis.annotate(f"{value:.1f}", (x, top), (0, 4), textcoords="offset points", ha="center", fontsize=8)
            axis.plot([x - 0.19, x + 0.19], [recall["chance"]] * 2, color=CHANCE, linestyle=":", linewidth=1.5)
            highest = max(highest, top)
    axis.plot([], [], color=CHANCE, linestyle=":", label="chance")
    axis.set(xticks=range(len(RECALL_AT)), xticklabels=[f"R@{k}" for k in RECALL_AT], ylabel="recall, %")
    axis.set_ylim(0, 1.1 * max(highest, 5))
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= 100])
    axis.set_title(f"RSum {metrics['rsum']['value']:.1f} of 600 (chance {metrics['rsum']['chance']:.1f})", fontsize=10)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False)


def similarity_panel(axis: Axes, statistics: dict[str, Any]) -> None:
    """statistics: of common.metrics.retrieval.similarity_statistics."""
    edges, occupied = statistics["histogram_edges"], []
    for name, title, colour in (("negative", "false pairs", FALSE), ("positive", "true pairs", TRUE)):
        counts, mean = statistics.get(f"{name}_histogram"), statistics.get(f"{name}_similarity")
        if counts:
            shares = [100 * count / sum(counts) for count in counts]
            axis.stairs(shares, edges, fill=True, alpha=0.45, color=colour, label=f"{title}, mean {mean:.3f}")
            axis.axvline(mean, color=colour, linewidth=1.5)
            occupied += [edge for edge, count in zip(edges, counts) if count]
    axis.set_xlim(max(-1, min(occupied) - 0.05), min(1, max(occupied) + 0.075))
    axis.set(xlabel="cosine of image and text", ylabel="share of pairs, %")
    if "similarity_gap" in statistics:
        axis.set_title(f"gap between the means: {statistics['similarity_gap']:.3f}", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
