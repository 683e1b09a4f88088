"""Evaluate how well a style encoder separates styles, compared with baselines that need no training.

    python evaluate_style.py --weights checkpoints/best.pth --data_dir data [--grey] [--csls] [--json]

images, in colour and without -> vectors by several methods -> pair ROC-AUC, precision@1 and MAP@R of styles, with 95 %
intervals over styles. Every image is a query among all others, so N styles make an N-way question. Where styles share
file names also the same metrics of contents (lower is better: how much of the content leaks into the style vector), and
the share of triples in which an image is closer to its style than to its content (conflict, higher is better).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from json import dumps
from pathlib import Path
from typing import Any

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from common.cli.errors import printable, run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.images.cache import CACHE_SCALE, THREADS, ImageCache
from common.metrics.embedding import MIN_CLASSES, content_conflict, retrieval_metrics
from common.models.eval_mode import eval_mode
from common.text.files import write_json
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import StyleDataset, find_samples
from model import VisionStyleEncoder
from style_encoder import build_untrained, load_encoder
from style_head import GramStatistics, colour_histogram
from targets import TargetShapes

METRICS = ("auc", "precision_at_1", "map_at_r")
CSLS_NEIGHBOURS = 10
COMBINED_IMAGES = 2000  # of which the weight of two baselines is chosen; of more images a random sample
COMBINATION, UNTRAINED = "histogram + Gram", "backbone before training"
LISTED_STYLES = 50
BATCH = 64  # images that are encoded at once


@tool
def main(
    *,
    weights: str,  # a .pth written by train.py
    data_dir: str,  # folder of <style>/<name>_img.*, or of ordinary image folders
    styles: Sequence[str] = (),  # only these style folders
    names: Sequence[str] = (),  # only these contents: paths below a style folder, without _img and suffix
    grey: bool = False,  # only without colours, in place of both
    csls: bool = False,  # a row more: the encoder with CSLS, each similarity corrected by both images' 10 neighbours
    device: str = "auto",
    output: Path | None = None,  # write the results to this JSON file
    json: bool = False,
) -> dict[str, Any]:
    torch_device = choose_device(device)
    encoder, content = load_encoder(weights, torch_device)
    samples = find_samples(data_dir)
    report_skipped(samples.skipped, listed="")
    for flag, selected, column in (("--styles", styles, samples.styles), ("--names", names, samples.names)):
        if missing := set(selected) - set(column):
            raise ValueError(f"{flag}: no {', '.join(sorted(missing))} in {data_dir}")
    rows = enumerate(zip(samples.styles, samples.names))
    samples = samples.select(
        row for row, (style, name) in rows if (not styles or style in styles) and (not names or name in names)
    )
    size = encoder.tower.image_size
    images = ImageCache(round(CACHE_SCALE * size))
    unreadable = images.check(samples.images, len(samples))
    report_skipped(unreadable, listed="")
    usable = samples.without(unreadable)
    members = Counter(usable.styles)
    if len(members) < 2 or max(members.values()) < 2:
        raise ValueError(
            f"{data_dir}: {len(usable)} readable images of {len(members)} styles; needed: two styles, one of two images"
        )
    untrained, problem = build_untrained(content, torch_device)
    report: dict[str, Any] = {
        "weights": weights,
        "data_dir": data_dir,
        "images": len(usable),
        "styles": len(members),
        "chance_precision_at_1": chance_precision(members.values()),
    }
    text = ""
    for look in ("grey",) if grey else ("colour", "grey"):
        dataset = StyleDataset(usable, images, size, TargetShapes(), grey=look == "grey")
        style = style_vectors(encoder, dataset, torch_device)
        results = {"style encoder": score(style, dataset, per_style=True)}
        if csls:
            results["style encoder, CSLS"] = score(style, dataset, per_style=True, csls_k=CSLS_NEIGHBOURS)
        for name, vectors in baseline_vectors(untrained, dataset, torch_device).items():
            results[name] = score(vectors, dataset, per_style=True)
        report[look] = results
        text += f"\n\n{'in colour' if look == 'colour' else 'without colours'}\n{format_table(results)}"
    if output:
        write_json(output, report)
    if problem:
        text += f"\n\nthe untrained backbone could not be built: {problem}"
    text = f"{describe_protocol(report)}{text}\n\n{format_styles(report)}"
    print(dumps(report, indent=2, ensure_ascii=False) if json else text)
    return report


def style_vectors(encoder: VisionStyleEncoder, dataset: StyleDataset, device: torch.device) -> torch.Tensor:
    """-> style (N, S) of every image of a dataset, in its order."""

    def encode(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"style": encoder(image.to(device)).style}

    with eval_mode(encoder):
        return _encode_dataset(dataset, encode, "encoding")["style"]


def baseline_vectors(
    untrained: VisionStyleEncoder | None, dataset: StyleDataset, device: torch.device
) -> dict[str, torch.Tensor]:
    """-> {name: (N, W)}: baselines for the style encoder on the same images; untrained None: the histogram alone."""
    gram = GramStatistics(untrained.tower.feature_map_widths).to(device) if untrained else None

    def encode(image: torch.Tensor) -> dict[str, torch.Tensor]:
        vectors = {"colour histogram": colour_histogram(image)}
        if untrained and gram:
            features = untrained.eval().tower(image.to(device))
            vectors["Gram matrices"] = gram(features.feature_maps)
            vectors[UNTRAINED] = features.pooled
        return vectors

    vectors = _encode_dataset(dataset, encode, "baselines")
    if untrained:
        parts = vectors["colour histogram"], vectors["Gram matrices"]
        weight = best_weight(*parts, torch.tensor(dataset.style_ids))
        vectors[f"{COMBINATION}, w {weight:.1f}"] = weighted_concatenation(*parts, weight)
    return vectors


def best_weight(first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of `first` in .1, .2, ..., .9 with the highest MAP@R on these very vectors: as good as it can look."""
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:COMBINED_IMAGES]
    first, second, labels = first[drawn], second[drawn], labels[drawn]

    def map_at_r(weight: float) -> float:
        return retrieval_metrics(weighted_concatenation(first, second, weight), labels).get("map_at_r", 0.0)

    return max((step / 10 for step in range(1, 10)), key=map_at_r)


def weighted_concatenation(first: torch.Tensor, second: torch.Tensor, weight: float) -> torch.Tensor:
    """Vectors (N, V), (N, W) -> (N, V + W), whose cosine is weight * cos(first) + (1 - weight) * cos(second)."""
    whole = torch.empty(len(first), first.shape[1] + second.shape[1])
    halves = whole.split([first.shape[1], second.shape[1]], 1)
    for part, half, share in ((first, halves[0], weight), (second, halves[1], 1 - weight)):
        torch.mul(part, share**0.5 / part.norm(dim=1, keepdim=True).clamp(min=1e-12), out=half)
    return whole


@torch.inference_mode()
def _encode_dataset(
    dataset: StyleDataset, encode: Callable[[torch.Tensor], dict[str, torch.Tensor]], label: str
) -> dict[str, torch.Tensor]:
    """encode(image (B, 3, S, S)) -> {name: (B, W)}, over a dataset: {name: (N, W)}. Drops broken samples from it."""
    whole: dict[str, torch.Tensor] = {}
    kept: list[int] = []
    with ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes outside Python's lock
        for start in progress_bar(range(0, len(dataset), BATCH), label, unit="batch"):
            part = range(start, min(start + BATCH, len(dataset)))
            items = {index: item for index, item in zip(part, pool.map(dataset.read, part)) if item is not None}
            if not items:
                continue
            for name, vectors in encode(torch.stack([item["image"] for item in items.values()])).items():
                if name not in whole:  # filled in place: a list of batches, concatenated, would need the memory twice
                    whole[name] = torch.empty(len(dataset), vectors.shape[1])
                whole[name][len(kept) : len(kept) + len(vectors)] = vectors
            kept += items
    if not kept:
        raise ValueError(f"none of {len(dataset)} images can be read, {dataset.file_of(0)} and others")
    if len(kept) < len(dataset):
        dataset.keep(kept)
    return {name: vectors[: len(kept)] for name, vectors in whole.items()}


def score(vectors: torch.Tensor, dataset: StyleDataset, per_style: bool = False, csls_k: int = 0) -> dict:
    """{'style': metrics, 'content': metrics or {}} of vectors (N, W) in the dataset's order.

    style holds "conflict", of plain cosines, where styles share names. per_style adds "per_style" and "interval", as
    retrieval_metrics has them.
    """
    style_ids, name_ids = torch.from_numpy(dataset.style_ids), torch.from_numpy(dataset.name_ids)
    style = retrieval_metrics(vectors, style_ids, per_style, csls_k)
    if "per_class" in style:
        style["per_style"] = {dataset.styles[label]: values for label, values in style.pop("per_class").items()}
    conflict = {} if csls_k else content_conflict(vectors, style_ids, name_ids)
    if conflict:
        style["conflict"] = conflict["conflict"]
        if "interval" in style and "conflict_interval" in conflict:  # fewer styles have triples than have pairs
            style["interval"]["conflict"] = conflict["conflict_interval"]
    return {"style": style, "content": retrieval_metrics(vectors, name_ids, csls_k=csls_k)}


def chance_precision(members: Iterable[int]) -> float:
    """P@1 of a random order of styles with so many images each: the mean share of a query's style among the others."""
    counts = list(members)
    queries = [count for count in counts if count > 1]
    return sum(count * (count - 1) for count in queries) / (sum(queries) * (sum(counts) - 1))


def describe_protocol(report: dict[str, Any]) -> str:
    styles = report["styles"]
    has_interval = "interval" in report["grey"]["style encoder"]["style"]
    return (
        f"{report['images']} images of {styles} styles, {'two' if styles == 2 else styles}-way: "
        f"every image a query among all others.\n"
        f"By chance: P@1 {_decimal(report['chance_precision_at_1'])}, AUC .500. "
        + ("Ranges: 95 % intervals, styles resampled." if has_interval else f"Intervals need {MIN_CLASSES} styles.")
    )


def format_table(results: dict[str, dict]) -> str:
    """{method: score} as a table of at most 79 columns."""
    lines = [
        f"{'':25}{'style (higher is better)':39}content",
        f"{'':25}" + "".join(f"{title:13}" for title in ("AUC", "P@1", "MAP@R")) + "AUC   conflict",
    ]
    for name, result in results.items():
        style, content = result["style"], result["content"]
        cells = "".join(f"{_with_interval(style, metric):13}" for metric in METRICS)
        conflict = _decimal(style["conflict"]) if "conflict" in style else "-"
        lines.append(f"{name:25}{cells}{_decimal(content['auc']) if content else '-':6}{conflict}")
    if any(name.startswith(COMBINATION) for name in results):
        lines.append("w: weight of the histogram, of .1 to .9 the best by MAP@R on these images")
    if any(result["content"] for result in results.values()):
        lines.append("content AUC: of equal file names; lower is better, .5 without any trace of them")
        lines.append("conflict: share of triples in which style wins over content; higher is better")
    return "\n".join(lines)


def format_styles(report: dict[str, Any]) -> str:
    """The style encoder's metrics for each style, the weakest of many."""
    looks = [look for look in ("colour", "grey") if look in report]
    tables = {look: report[look]["style encoder"]["style"].get("per_style", {}) for look in looks}
    tables = {look: {printable(name): row for name, row in table.items()} for look, table in tables.items()}
    names = list(tables[looks[0]])
    title = "style encoder, per style"
    if len(names) > LISTED_STYLES:
        names = sorted(names, key=lambda name: tables[looks[0]][name]["map_at_r"])[:LISTED_STYLES]
        title = f"style encoder, the {LISTED_STYLES} weakest styles (all: --json)"
    width = max(map(len, ["", *names])) + 4
    lines = [title, " " * width + "   ".join(f"{look:19}" for look in looks).rstrip()]
    lines.append(" " * width + "   ".join("AUC    P@1    MAP@R" for _ in looks))
    for name in names:
        cells = ("  ".join(f"{_decimal(tables[look][name][metric]):5}" for metric in METRICS) for look in looks)
        lines.append(f"  {name:{width - 2}}" + "   ".join(cells).rstrip())
    return "\n".join(lines)


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    """'.953 .90-.98', without a range where there is none."""
    if name not in metrics:
        return "-"
    bounds = metrics.get("interval", {}).get(name, [])
    return " ".join([_decimal(metrics[name]), "-".join(_decimal(bound, 2) for bound in bounds)]).rstrip()


def _decimal(value: float, digits: int = 3) -> str:
    """A share in [0, 1] in digits + 1 characters: '.953', '1.00'."""
    return f"{value:.{digits}f}".removeprefix("0")[: digits + 1]


if __name__ == "__main__":
    run_script(main)
