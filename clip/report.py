"""Report of an evaluation: JSON, one line per query, two plots, and a table for the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip.embed import PairEmbeddings
from clip.plots import DIRECTIONS, plot_metrics
from common.metrics.retrieval import RECALL_AT, Ranking
from common.text.files import write_json, write_jsonl
from common.training.skip_log import write_skipped

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
    true_images = [[names[image]] for image in embeddings.image_of_text.tolist()]
    sides = (names, texts, embeddings.texts_of_image), (texts, names, true_images)
    for direction, ranking, (queries, gallery, true_answers) in zip(DIRECTIONS, rankings, sides):
        columns = (ranking.rank, ranking.found, ranking.found_score, ranking.true_score, ranking.true_count)
        rows = zip(queries, true_answers, *(column.tolist() for column in columns))
        for query, true, rank, first, first_score, true_score, true_count in rows:
            yield {
                "direction": direction,
                "query": query,
                "rank": rank,
                "retrieved": gallery[first],
                "retrieved_score": round(first_score, 6),
                "true": true,
                "true_score": round(true_score, 6),
                "true_in_gallery": true_count,
            }


def format_report(report: dict[str, Any], folder: Path) -> str:
    """The report as text for a terminal."""
    split = f", split '{report['split']}'" if report["split"] else ""
    retrieval, similarity, texts = report["retrieval"], report["similarity"], report["retrieved_text"]
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
        *format_classes("zero-shot classification", report["zero_shot"], report["class_source"]),
        *format_classes("linear probe", report["linear_probe"], report["class_source"]),
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
    fit = ""
    if "images_to_fit" in result:
        fit = f"; fitted to {result['images_to_fit']} images, tested on {result['test_images']}, C {result['C']:g}"
    yield f"{title} ({result['classes']} classes from the {source}{fit})"
    yield from (format_row(f"top-{k} accuracy, %", result[f"top{k}"]) for k in (1, 5) if f"top{k}" in result)
    yield f"  {'always the largest class':24}{result['largest_class']:9.1f}"
    if skipped := result.get("skipped_classes"):
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        yield f"  without classes of too few images: {', '.join(skipped[:5])}{more}"
