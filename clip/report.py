"""Report of an evaluation: JSON, one line per query, two plots, and a table for the terminal.

The plots: recall per direction, cosines of true and false pairs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from clip.embed import PairEmbeddings
from common.metrics.retrieval import RECALL_AT, Ranking
from common.text.files import write_json, write_jsonl
from common.training.plots import legend_above, panel_figure, readable, save_figure
from common.training.skip_log import write_skipped

TRUE, FALSE, CHANCE = "#1a73b7", "#d1782f", "#3c4043"
DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}
COSINES = {
    "true pairs, mean": "positive_similarity",
    "false pairs, mean": "negative_similarity",
    "gap between them": "similarity_gap",
}


def write_results(
    folder: Path,
    report: dict[str, Any],
    rankings: tuple[Ranking, Ranking],
    embeddings: PairEmbeddings,
    names: list[str],
    skipped: dict[str, str],
) -> None:
    """evaluation.json, per_query.jsonl, retrieval.png, similarity.png, skipped.jsonl. names (N): of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", report)
    write_jsonl(folder / "per_query.jsonl", describe_queries(rankings, embeddings, names))
    plot_metrics(folder / "retrieval.png", retrieval=report["retrieval"])
    plot_metrics(folder / "similarity.png", similarity=report["similarity"])
    write_skipped(folder / "skipped.jsonl", skipped)


def describe_queries(
    rankings: tuple[Ranking, Ranking], embeddings: PairEmbeddings, names: list[str]
) -> Iterator[dict[str, Any]]:
    """One dict per image, then one per text: the query, its rank, the first answer, the true answers."""
    texts = embeddings.texts
    true_texts = (list(pair.texts) for pair in embeddings.pairs)
    true_images = ([names[image]] for image in embeddings.image_of_text.tolist())
    sides = (names, texts, true_texts), (texts, names, true_images)
    for direction, ranking, (queries, gallery, true_answers) in zip(DIRECTIONS, rankings, sides):
        for index, (query, true) in enumerate(zip(queries, true_answers)):
            yield {
                "direction": direction,
                "query": query,
                "rank": int(ranking.rank[index]),
                "retrieved": gallery[ranking.found[index]],
                "retrieved_score": round(float(ranking.found_score[index]), 6),
                "true": true,
                "true_score": round(float(ranking.true_score[index]), 6),
                "true_in_gallery": int(ranking.true_count[index]),
            }


def format_report(report: dict[str, Any], folder: Path) -> str:
    """The report as text for a terminal."""
    split = f", split '{report['split']}'" if report["split"] else ""
    retrieval, similarity, texts = report["retrieval"], report["similarity"], report["retrieved_text"]
    kinds = {"zero-shot classification": report["zero_shot"], "linear probe": report["linear_probe"]}
    reason, other = (result.get("not_measured") for result in kinds.values())
    if reason and reason == other:
        kinds = {", ".join(kinds): report["zero_shot"]}
    ranks = {f"R@{k}, %": f"r{k}" for k in RECALL_AT} | {"mean rank": "mean_rank", "median rank": "median_rank"}
    lines = [
        f"{report['images']} images, {report['texts']} texts ({report['unique_texts']} unique, "
        f"{report['truncated_texts']} truncated){split}",
        *([f"note: {report['note']}"] if report["note"] else []),
        f"\n{'':26}{'value':>9}{'95 % interval':>20}{'chance':>10}",
    ]
    for direction, title in DIRECTIONS.items():
        lines += [title, *(format_row(label, retrieval[f"{direction}_{name}"]) for label, name in ranks.items())]
    lines += [
        format_row("RSum, 0 to 600", retrieval["rsum"], indent=0),
        "cosine of image and text",
        *(f"  {title:24}{similarity[name]:9.3f}" for title, name in COSINES.items() if name in similarity),
        f"first text retrieved by each image, compared with its own ({texts['images']} images)",
        *(format_row(f"{name.upper()}, 0 to 100", texts[name]) for name in ("bleu", "rouge1", "rouge2", "rougeL")),
        *(line for title, result in kinds.items() for line in format_classes(title, result, report["class_source"])),
        f"\nall numbers, every query and two plots are in {folder}",
    ]
    return "\n".join(lines)


def format_row(label: str, metric: dict[str, Any], indent: int = 2) -> str:
    interval = " .. ".join(f"{limit:.1f}" for limit in metric.get("interval", ()))
    return f"{' ' * indent + label:26}{metric['value']:9.1f}{interval:>20}{metric['chance']:10.1f}"


def format_classes(title: str, result: dict[str, Any], source: str) -> Iterator[str]:
    if reason := result.get("not_measured"):
        yield f"{title}: not measured, {reason} (from the {source}; see --classes and --classes_csv)"
        return
    fit = (
        f"; fitted to {result['images_to_fit']} images, tested on {result['test_images']}, C {result['C']:g}"
        if "images_to_fit" in result
        else ""
    )
    yield f"{title} ({result['classes']} classes from the {source}{fit})"
    yield from (format_row(f"top-{k} accuracy, %", result[f"top{k}"]) for k in (1, 5) if f"top{k}" in result)
    yield f"  {'always the largest class':24}{result['largest_class']:9.1f}"
    if skipped := result.get("skipped_classes"):
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        yield f"  without classes of too few images: {', '.join(skipped[:5])}{more}"


@readable
def plot_metrics(
    path: str | Path, retrieval: dict[str, dict[str, Any]] | None = None, similarity: dict[str, Any] | None = None
) -> None:
    """Bars of recall (of measure_retrieval), histograms of cosines (of similarity_statistics), one of them or both."""
    panels = [panel for panel in ((recall_panel, retrieval), (similarity_panel, similarity)) if panel[1]]
    figure, axes = panel_figure(len(panels), (4.2, 3.8))
    for axis, (draw, values) in zip(axes, panels):
        draw(axis, values)
    save_figure(figure, path)


def recall_panel(axis: Axes, metrics: dict[str, dict[str, Any]]) -> None:
    """metrics: {'i2t_r1': {'value', 'interval' (low, high), 'chance'}, ..., 'rsum': ...}, all in percent."""
    highest = 0.0
    for direction, offset, colour in zip(DIRECTIONS, (-0.2, 0.2), (TRUE, FALSE)):
        recalls = {group + offset: metrics[f"{direction}_r{k}"] for group, k in enumerate(RECALL_AT)}
        axis.bar(
            list(recalls),
            [recall["value"] for recall in recalls.values()],
            0.38,
            color=colour,
            label=DIRECTIONS[direction],
        )
        for x, recall in recalls.items():
            value, (low, high) = recall["value"], recall["interval"]
            # The value may lie outside of its percentile interval; an error bar cannot have a negative length.
            axis.errorbar(
                x, value, [[max(value - low, 0)], [max(high - value, 0)]], color=CHANCE, capsize=3, linewidth=1
            )
            top = max(high, value, recall["chance"])
            axis.annotate(f"{value:.1f}", (x, top), (0, 4), textcoords="offset points", ha="center", fontsize=9)
            axis.plot([x - 0.19, x + 0.19], [recall["chance"]] * 2, color=CHANCE, linestyle=":", linewidth=1.5)
            highest = max(highest, top)
    axis.plot([], [], color=CHANCE, linestyle=":", label="chance")
    axis.set(
        xticks=range(len(RECALL_AT)),
        xticklabels=[f"R@{k}" for k in RECALL_AT],
        ylabel="recall, %",
        ylim=(0, 1.1 * max(highest, 5)),
    )
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= 100])
    axis.grid(axis="y", alpha=0.3)
    legend_above(axis, f"RSum {metrics['rsum']['value']:.1f} of 600 (chance {metrics['rsum']['chance']:.1f})")


def similarity_panel(axis: Axes, statistics: dict[str, Any]) -> None:
    """statistics: of common.metrics.retrieval.similarity_statistics."""
    edges, occupied = statistics["histogram_edges"], []
    for name, title, colour in (("negative", "false pairs", FALSE), ("positive", "true pairs", TRUE)):
        counts, mean = statistics.get(f"{name}_histogram"), statistics.get(f"{name}_similarity")
        if counts:
            axis.stairs(
                [100 * count / sum(counts) for count in counts],
                edges,
                fill=True,
                alpha=0.45,
                color=colour,
                label=f"{title}, mean {mean:.3f}",
            )
            axis.axvline(mean, color=colour, linewidth=1.5)
            occupied += [edge for edge, count in zip(edges, counts) if count]
    axis.set(
        xlim=(max(-1, min(occupied) - 0.05), min(1, max(occupied) + 0.075)),
        xlabel="cosine of image and text",
        ylabel="share of pairs, %",
    )
    gap = f"gap of the means: {statistics['similarity_gap']:.3f}" if "similarity_gap" in statistics else "cosines"
    axis.grid(alpha=0.3)
    legend_above(axis, gap, columns=1)
