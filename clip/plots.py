"""Pictures of retrieval: how often the right answer is found, and how far true pairs lie from false ones."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.metrics.retrieval import RECALL_AT
from common.training.plots import save_figure

TRUE, FALSE, CHANCE = "#1a73b7", "#d1782f", "#3c4043"
DIRECTIONS = {"i2t": "image finds text", "t2i": "text finds image"}


def draw_retrieval(path: str | Path, numbers: dict[str, dict[str, Any]]) -> None:
    """Bars of recall, from clip.metrics.measure_retrieval."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    recall_panel(figure.subplots(), numbers)
    save_figure(figure, path)


def draw_similarity(path: str | Path, statistics: dict[str, Any]) -> None:
    """Histograms of the cosines of true and false pairs, from common.metrics.retrieval.similarity_statistics."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    similarity_panel(figure.subplots(), statistics)
    save_figure(figure, path)


def draw_both(path: str | Path, numbers: dict[str, dict[str, Any]], statistics: dict[str, Any]) -> None:
    """The two side by side."""
    figure = Figure(figsize=(11.6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    recall_panel(axes[0], numbers)
    similarity_panel(axes[1], statistics)
    save_figure(figure, path)


def recall_panel(axis: Axes, numbers: dict[str, dict[str, Any]]) -> None:
    """numbers: {'i2t_r1': {'value', 'interval' (low, high), 'chance'}, ..., 'rsum': ...}, all in percent."""
    highest = 0.0
    for place, (direction, title) in enumerate(DIRECTIONS.items()):
        found = [numbers[f"{direction}_r{k}"] for k in RECALL_AT]
        left = [group + 0.4 * place - 0.2 for group in range(len(RECALL_AT))]
        values = [one["value"] for one in found]
        axis.bar(left, values, 0.38, color=(TRUE, FALSE)[place], label=title)
        for x, one in zip(left, found):
            low, high = one["interval"]
            # Of a percentile interval the value itself may lie outside; a bar cannot have a negative length.
            lengths = [[max(one["value"] - low, 0)], [max(high - one["value"], 0)]]
            axis.errorbar(x, one["value"], lengths, color=CHANCE, capsize=3, linewidth=1)
            top = max(high, one["value"], one["chance"])
            axis.annotate(f"{one['value']:.1f}", (x, top), (0, 4), textcoords="offset points", ha="center", fontsize=8)
            highest = max(highest, top)
            axis.plot([x - 0.19, x + 0.19], [one["chance"]] * 2, color=CHANCE, linestyle=":", linewidth=1.5)
    axis.plot([], [], color=CHANCE, linestyle=":", label="chance")
    axis.set(xticks=range(len(RECALL_AT)), xticklabels=[f"R@{k}" for k in RECALL_AT], ylabel="queries answered, %")
    axis.set_ylim(0, 1.1 * max(highest, 5))
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= 100])
    axis.set_title(f"RSum {numbers['rsum']['value']:.1f} of 600 (chance {numbers['rsum']['chance']:.1f})", fontsize=10)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False)


def similarity_panel(axis: Axes, statistics: dict[str, Any]) -> None:
    """statistics: of common.metrics.retrieval.similarity_statistics."""
    edges, drawn = statistics["histogram_edges"], []
    for name, title, colour in (("negative", "false pairs", FALSE), ("positive", "true pairs", TRUE)):
        counts, mean = statistics.get(f"{name}_histogram"), statistics.get(f"{name}_similarity")
        if not counts:
            continue
        share = [100 * count / sum(counts) for count in counts]
        axis.stairs(share, edges, fill=True, alpha=0.45, color=colour, label=f"{title}, mean {mean:.3f}")
        axis.axvline(mean, color=colour, linewidth=1.5)
        drawn += [edge for edge, count in zip(edges, counts) if count]
    axis.set_xlim(max(-1, min(drawn) - 0.05), min(1, max(drawn) + 0.075))
    axis.set(xlabel="cosine of image and text", ylabel="share of pairs, %")
    if "similarity_gap" in statistics:
        axis.set_title(f"gap between the means: {statistics['similarity_gap']:.3f}", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
