"""What an evaluation leaves: a table for people, JSON for programs, a line for every query, two pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip.embed import Encoded
from clip.plots import DIRECTIONS, draw_retrieval, draw_similarity
from common.metrics.retrieval import RECALL_AT, Ranking
from common.text.files import write_json, write_jsonl
from common.training.skip_log import write_skipped

WHAT_BLEU_IS = "text found first by each image, against its own"


def write_results(
    folder: Path,
    report: dict[str, Any],
    rankings: tuple[Ranking, Ranking],
    encoded: Encoded,
    names: list[str],
    skipped: dict[str, str],
) -> None:
    """evaluation.json, per_query.jsonl, retrieval.png, similarity.png; skipped.jsonl. names (N): of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", report)
    write_jsonl(folder / "per_query.jsonl", describe_queries(rankings, encoded, names))
    draw_retrieval(folder / "retrieval.png", report["retrieval"])
    draw_similarity(folder / "similarity.png", report["similarity"])
    write_skipped(folder / "skipped.jsonl", skipped)


def describe_queries(rankings: tuple[Ranking, Ranking], encoded: Encoded, names: list[str]) -> Iterator[dict[str, Any]]:
    """One dict per image, then one per text: the query, its rank, what it found first, what it should have found."""
    own: list[list[str]] = [[] for _ in names]
    owners = encoded.image_of_text.tolist()
    for owner, text in zip(owners, encoded.texts):
        own[owner].append(text)
    sides = (names, encoded.texts, own), (encoded.texts, names, [[names[owner]] for owner in owners])
    for direction, ranking, (queries, gallery, true) in zip(DIRECTIONS, rankings, sides):
        columns = (ranking.rank, ranking.found, ranking.found_score, ranking.true_score, ranking.true_count)
        values = zip(*(column.tolist() for column in columns))
        for query, own_answers, (rank, found, found_score, true_score, true_count) in zip(queries, true, values):
            yield {
                "direction": direction,
                "query": query,
                "rank": rank,
                "found": gallery[found],
                "found_score": round(found_score, 6),
                "true": own_answers,
                "true_score": round(true_score, 6),
                "true_in_gallery": true_count,
            }


def format_report(report: dict[str, Any], folder: Path) -> str:
    """The report as text for a terminal."""
    split = f", split '{report['split']}'" if report["split"] else ""
    lines = [
        f"{report['images']} images, {report['texts']} texts ({report['different_texts']} different, "
        f"{report['texts_cut']} longer than the model reads){split}",
        *([f"note: {report['note']}"] if report["note"] else []),
        f"\n{'':26}{'value':>9}{'95 % interval':>20}{'chance':>10}",
    ]
    for direction, title in DIRECTIONS.items():
        names = {f"R@{k}, %": f"r{k}" for k in RECALL_AT} | {"mean rank": "mean_rank", "median rank": "median_rank"}
        numbers = report["retrieval"]
        lines += [title, *(row(label, numbers[f"{direction}_{name}"]) for label, name in names.items())]
    lines += [row("RSum, 0 to 600", report["retrieval"]["rsum"], indent=0), *similarity_lines(report["similarity"])]
    lines.append(f"{WHAT_BLEU_IS} ({report['found_text']['images']} images)")
    lines += [
        row(f"{name.upper()}, 0 to 100", report["found_text"][name]) for name in ("bleu", "rouge1", "rouge2", "rougeL")
    ]
    lines += class_lines("zero-shot classification", report["zero_shot"], report["classes_from"])
    lines += class_lines("linear probe", report["linear_probe"], report["classes_from"])
    return "\n".join([*lines, f"\nevery query, the numbers and two pictures are in {folder}"])


def row(label: str, number: dict[str, Any], indent: int = 2) -> str:
    low, high = number.get("interval", (None, None))
    interval = f"{low:.1f} .. {high:.1f}" if low is not None else ""
    return f"{' ' * indent + label:26}{number['value']:9.1f}{interval:>20}{number['chance']:10.1f}"


def similarity_lines(statistics: dict[str, Any]) -> list[str]:
    names = {"positive": "positive_similarity", "negative": "negative_similarity", "gap": "similarity_gap"}
    titles = {"positive": "true pairs, mean", "negative": "false pairs, mean", "gap": "gap between them"}
    found = [f"  {titles[one]:24}{statistics[name]:9.3f}" for one, name in names.items() if name in statistics]
    return ["cosine of image and text", *found]


def class_lines(title: str, result: dict[str, Any], source: str) -> list[str]:
    if why := result.get("not_measured"):
        return [f"{title}: not measured, {why} (from the {source}; see --classes and --classes_csv)"]
    about = f"{result['classes']} classes from the {source}"
    if "images_to_fit" in result:
        about += (
            f"; fitted to {result['images_to_fit']} images, asked about {result['images_asked']}, C {result['C']:g}"
        )
    lines = [f"{title} ({about})"]
    for k in (1, 5):
        if f"top{k}" in result:
            lines.append(row(f"top-{k} accuracy, %", result[f"top{k}"]))
    lines.append(f"  {'always the largest class':24}{result['largest_class']:9.1f}")
    if left := result.get("left_out_classes"):
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        lines.append(f"  without classes of too few images: {', '.join(left[:5])}{more}")
    return lines
