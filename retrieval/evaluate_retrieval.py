"""Evaluate retrieval of gallery images by query images.

    python retrieval/evaluate_retrieval.py --query_features query.npz --gallery_features gallery.npz --top_k 1 3 5

vectors (Q, D), (N, D) [-> PCA-whitening -> database augmentation] -> index -> ranked lists (Q, K) [-> query expansion
-> re-ranking] -> Top-K, mAP, R-precision, MAP@R, over all queries and over those whose class the gallery has

An image is never its own answer: the same file, by path or bytes, is removed from a query's list.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from jsonargparse.typing import PositiveInt

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.text.files import write_json
from common.training.device import choose_device
from common.vectors.extractor import difference
from common.vectors.shards import FeatureSet, read_features
from retrieval.labels import read_labels
from retrieval.metrics import GroundTruth, LabelledImages, query_values, summarise
from retrieval.ranking import Postprocessing, Ranker

QUERY_ROWS = 1024  # queries ranked at once, unless their lists together are longer than
LIST_ROWS = 2**23


@tool
def main(
    *,
    query_features: Path,  # .npz or folder of extract_features.py
    gallery_features: Path,  # extracted with the same weights and options
    top_k: list[PositiveInt] = (1, 3, 5),
    query_labels: Path | None = None,  # .csv or .tsv of path and class; default: the folder's name is the class
    gallery_labels: Path | None = None,  # the same for the gallery
    output: Path | None = None,  # write the scores here, as JSON
    index: str = "flat",  # exact, flat, ivf, hnsw, ivfpq, or a FAISS factory string
    search_params: str = "",  # of an approximate index: nprobe=32, efSearch=128
    depth: PositiveInt = 10_000,  # how much of the gallery is ranked, for mAP
    postprocessing: Postprocessing,
    device: str = "auto",
) -> dict:
    top_k = sorted(set(top_k))
    print("加载查询集特征...")
    queries = read_features(query_features)
    print("加载候选集特征...")
    gallery = read_features(gallery_features)
    check_comparable(queries, gallery, query_features, gallery_features)
    truth = GroundTruth(labelled(queries, query_labels), labelled(gallery, gallery_labels))
    print(f"查询集: ({len(queries)}, {queries.width}), 候选集: ({len(gallery)}, {gallery.width})")
    print("构建 FAISS 索引...")
    size = len(gallery), gallery.width
    ranker = Ranker(gallery.blocks, *size, postprocessing, index, search_params, choose_device(device))
    print("执行检索...")
    depth = max(depth, *top_k, int(truth.true_count.max()))
    values = evaluate_queries(queries, ranker, truth, depth, top_k)
    digests = all(any(side.digests) for side in (queries, gallery))
    report = summarise(values, truth, len(gallery)) | {
        "queries": len(queries),
        "gallery": len(gallery),
        "depth": min(depth, len(gallery)),
        "index": index,
        "queries_without_class_in_gallery": int((truth.true_count == 0).sum()),
        "duplicates_removed": int(truth.duplicates.sum()),
        "duplicates_found_by": "path and bytes" if digests else "path alone (the .npz holds no digests)",
        "postprocessing": ranker.steps,
        "query_features": str(query_features),
        "gallery_features": str(gallery_features),
        "metadata": gallery.metadata,
    }
    print(format_report(report, values, top_k))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, report)
    return report


def evaluate_queries(
    queries: FeatureSet, ranker: Ranker, truth: GroundTruth, depth: int, top_k: Sequence[int]
) -> dict[str, np.ndarray]:
    """-> for each metric a value (Q,) of each query."""
    parts, first = [], 0
    for block in queries.blocks(max(1, min(QUERY_ROWS, LIST_ROWS // depth))):
        part = slice(first, first + len(block))
        rows = ranker(block, depth + int(truth.duplicates[part].max()))
        parts.append(query_values(truth.relevant(rows, depth, first), truth.true_count[part], top_k))
        first += len(block)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def format_report(report: dict, values: dict[str, np.ndarray], top_k: Sequence[int]) -> str:
    """A line for each Top-K, and a table of all metrics with both denominators."""
    total, missing = report["queries"], report["queries_without_class_in_gallery"]
    lines = [f"Top-{k} 准确率: {report[f'Top-{k}']:.4f} ({int(values[f'Top-{k}'].sum())}/{total})" for k in top_k]
    header = f"{'':12}{f'all {total}':>12}{f'answerable {total - missing}':>20}{'95 % interval':>20}{'chance':>10}"
    lines += ["", header]
    for name in values:
        low, high = report["interval_95"][name]
        answerable = report["answerable"][name]
        answerable = "-" if answerable is None else f"{answerable:.4f}"
        chance = f"{report['chance'][name]:10.4f}" if name in report["chance"] else ""
        lines.append(f"{name:12}{report[name]:12.4f}{answerable:>20}{f'{low:.4f} .. {high:.4f}':>20}{chance}")
    lines += [
        f"coverage {report['coverage']:.4f}: {missing} of {total} queries have no image of their class in the gallery",
        f"{report['duplicates_removed']} duplicates of queries removed from their lists, found by "
        f"{report['duplicates_found_by']}",
    ]
    if report["depth"] < report["gallery"]:
        lines.append(
            f"lists end at {report['depth']} of {report['gallery']}: correct images beyond count as missed in mAP"
        )
    return "\n".join(lines)


def labelled(features: FeatureSet, table: Path | None) -> LabelledImages:
    paths = [os.path.abspath(path) for path in features.paths]  # noqa: PTH100 - no look at the disk
    return LabelledImages(read_labels(features, table), features.digests, paths)


def check_comparable(queries: FeatureSet, gallery: FeatureSet, query_file: Path, gallery_file: Path) -> None:
    """ValueError if the vectors were made by two networks, or with two sets of options."""
    if queries.width != gallery.width:
        raise ValueError(f"{query_file}: vectors of width {queries.width}, but {gallery.width} in {gallery_file}")
    if queries.metadata and gallery.metadata and (differing := difference(queries.metadata, gallery.metadata)):
        raise ValueError(f"{query_file}: {differing} as in {gallery_file}; extract both alike")


if __name__ == "__main__":
    run_script(main)
