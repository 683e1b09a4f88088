"""Evaluate retrieval of gallery images by query images.

    python retrieval/evaluate_retrieval.py --query_features query.npz --gallery_features gallery.npz --top_k 1 3 5

vectors (Q, D), (N, D) [-> PCA-whitening -> database augmentation] -> index -> ranked lists (Q, K) [-> query expansion
-> re-ranking] -> Top-K, mAP, R-precision, MAP@R, over all queries and over those whose class the gallery has

An image is never its own answer: the same file, by path or bytes, is removed from a query's list.

For arrays in a program: load_features_with_labels, build_faiss_index, evaluate_retrieval, rerank_with_query_expansion.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
from jsonargparse.typing import PositiveInt

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.text.files import write_json
from common.text.tables import read_rows
from common.training.device import choose_device
from common.vectors.extractor import difference
from common.vectors.faiss_index import ExactIndex, load_faiss
from common.vectors.feature_files import read_features
from common.vectors.feature_set import FeatureSet
from common.vectors.shards import l2_normalize
from retrieval.metrics import GroundTruth, LabelledImages, query_values, summarise
from retrieval.postprocessing import Postprocessing
from retrieval.ranking import Ranker, expand

QUERY_ROWS = 1024  # queries ranked at once, unless their lists together are longer than
LIST_ROWS = 2**23
PATH_NAMES = ("path", "image", "image_path", "file", "file_name")
LABEL_NAMES = ("label", "class", "category")


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
    depth: PositiveInt = 10_000,  # how much of the gallery is ranked, for mAP (average precision, no trapezoids)
    postprocessing: Postprocessing,
    device: str = "auto",
) -> dict:
    top_k = sorted(set(top_k))
    print("加载查询集特征...")
    queries = read_features(query_features)
    print("加载候选集特征...")
    gallery = read_features(gallery_features)
    if queries.width != gallery.width:
        raise ValueError(
            f"{query_features}: vectors of width {queries.width}, but {gallery.width} in {gallery_features}"
        )
    if queries.metadata and gallery.metadata and (differing := difference(queries.metadata, gallery.metadata)):
        raise ValueError(f"{query_features}: {differing} as in {gallery_features}; extract both alike")
    truth = GroundTruth(labelled(queries, query_labels), labelled(gallery, gallery_labels))
    print(f"查询集: ({len(queries)}, {queries.width}), 候选集: ({len(gallery)}, {gallery.width})")
    print("构建 FAISS 索引...")
    ranker = Ranker(
        gallery.blocks, len(gallery), gallery.width, postprocessing, index, search_params, choose_device(device)
    )
    print("执行检索...")
    depth = max(depth, *top_k, int(truth.true_count.max()))
    values = evaluate_queries(queries, ranker, truth, depth, top_k)
    has_digests = any(queries.digests) and any(gallery.digests)
    report = summarise(values, truth, len(gallery)) | {
        "queries": len(queries),
        "gallery": len(gallery),
        "depth": min(depth, len(gallery)),
        "index": index,
        "queries_without_class_in_gallery": int((truth.true_count == 0).sum()),
        "duplicates_removed": int(truth.duplicates.sum()),
        "duplicates_found_by": "path and bytes" if has_digests else "path alone (the .npz holds no digests)",
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
    lines = [
        *format_top_k(values, top_k),
        "",
        f"{'':12}{f'all {total}':>12}{f'answerable {total - missing}':>20}{'95 % interval':>20}{'chance':>10}",
    ]
    for name in values:
        low, high = report["interval_95"][name]
        answerable = "-" if report["answerable"][name] is None else f"{report['answerable'][name]:.4f}"
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


def format_top_k(values: dict[str, np.ndarray], top_k: Sequence[int]) -> list[str]:
    hits = {f"Top-{k}": values[f"Top-{k}"] for k in top_k}
    return [f"{name} 准确率: {hit.mean():.4f} ({int(hit.sum())}/{len(hit)})" for name, hit in hits.items()]


def labelled(features: FeatureSet, table: Path | None) -> LabelledImages:
    paths = [os.path.abspath(path) for path in features.paths]  # noqa: PTH100 - no look at the disk
    return LabelledImages(read_labels(features, table), features.digests, paths)


def read_labels(features: FeatureSet, table: Path | None = None) -> list[str]:
    """One name for each image. table: .csv or .tsv, its paths relative to the --image_dir of the features."""
    root = features.metadata.get("image_dir", "")
    relative = [os.path.relpath(path, root) if root else path for path in features.paths]
    if table is None:
        labels = [Path(path if "/" in path else _plain_path(path)).parent.name for path in relative]
        if "" in labels:
            path = features.paths[labels.index("")]
            raise ValueError(f"{path}: lies in no class folder below {root or '.'}; give a table of classes")
        return labels
    classes = read_classes(table)
    keys = [[_plain_path(name) for name in names] for names in zip(relative, features.paths)]
    labels = [classes.get(key, classes.get(whole)) for key, whole in keys]
    if None in labels:
        raise ValueError(
            f"{table}: no class for {labels.count(None)} of {len(labels)} images, the first: "
            f"{relative[labels.index(None)]}"
        )
    return labels


def read_classes(file: Path) -> dict[str, str]:
    """Path -> class: columns by name if there is a header (path, label, ...), else the first two."""
    rows = read_rows(file, "--query_labels, --gallery_labels")
    if not rows or len(rows[0][1]) < 2:
        raise ValueError(f"{file}: expected two columns, path and class, separated by , ; | or a tab")
    header = [name.strip().lower() for name in rows[0][1]]
    named = [[header.index(name) for name in names if name in header] for names in (PATH_NAMES, LABEL_NAMES)]
    path, label = (columns[0] for columns in named) if all(named) else (0, 1)
    classes: dict[str, str] = {}
    for line, cells in rows[1 if all(named) else 0 :]:
        if len(cells) != len(header):
            raise ValueError(f"{file} line {line}: {len(cells)} cells, but the first line has {len(header)}")
        if not cells[path] or not (name := cells[label].strip()):
            raise ValueError(f"{file} line {line}: no {'class' if cells[path] else 'path'}")
        if classes.setdefault(_plain_path(cells[path]), name) != name:
            raise ValueError(f"{file} line {line}: {cells[path]} has another class in an earlier line")
    return classes


def _plain_path(name: str) -> str:
    """With / for the \\ of Windows, and without ./ and the like."""
    return os.path.normpath(name.replace("\\", "/"))


def load_features_with_labels(
    npz_path: str | Path, label_mapping_fn: Callable[[str], Any] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A file or folder of features -> vectors (N, D) float32, labels (N,), paths (N,).

    label_mapping_fn: path -> label; by default the name of the image's folder.
    """
    features = read_features(npz_path)
    labels = list(map(label_mapping_fn, features.paths)) if label_mapping_fn else read_labels(features)
    return features.all(), np.array(labels), np.array(features.paths)


def build_faiss_index(features: np.ndarray) -> Any:
    """Vectors (N, D) -> FAISS's exact index: search(queries, k) gives squared distances (Q, k) and rows (Q, k)."""
    index = load_faiss().IndexFlatL2(np.shape(features)[1])
    index.add(features)
    return index


def evaluate_retrieval(
    query_features: np.ndarray,
    query_labels: Sequence[Any],
    gallery_features: np.ndarray,
    gallery_labels: Sequence[Any],
    top_k_list: Sequence[int] = (1, 3, 5),
) -> dict[str, float]:
    """Vectors (Q, D), (N, D), brought to length 1, and their labels -> {"Top-1": share of queries with a hit, ...}.

    Arrays name no files, so no gallery row is removed as a query's duplicate; main() does that.
    """
    queries, query_images = _labelled_array("query", query_features, query_labels)
    gallery, gallery_images = _labelled_array("gallery", gallery_features, gallery_labels)
    if queries.width != gallery.width:
        raise ValueError(f"query_features of width {queries.width}, but gallery_features of {gallery.width}")
    print("构建 FAISS 索引...")
    ranker = Ranker(gallery.blocks, len(gallery), gallery.width)
    print("执行检索...")
    truth = GroundTruth(query_images, gallery_images)
    values = evaluate_queries(queries, ranker, truth, max(top_k_list), top_k_list)
    print("\n".join(format_top_k(values, top_k_list)))
    return {f"Top-{k}": float(values[f"Top-{k}"].mean()) for k in top_k_list}


def _labelled_array(side: str, vectors: np.ndarray, labels: Sequence[Any]) -> tuple[FeatureSet, LabelledImages]:
    if np.ndim(vectors) != 2 or len(vectors) != len(labels):
        raise ValueError(
            f"{side}_features {np.shape(vectors)}, {len(labels)} labels: expected (N, D) and a label for each row"
        )
    unknown = [""] * len(labels)
    return FeatureSet([vectors], unknown, unknown), LabelledImages(labels, unknown, unknown)


def rerank_with_query_expansion(
    query_features: np.ndarray, gallery_features: np.ndarray, initial_indices: np.ndarray, k1: int = 5
) -> np.ndarray:
    """Vectors (Q, D), (N, D), rows (Q, K) of a first search, K >= k1 -> all rows (Q, N), best first.

    The query is the mean of itself and its first k1 (Chum et al. 2007). main(): --alpha_qe, which weighs them.
    """
    queries, gallery = l2_normalize(query_features), l2_normalize(gallery_features)
    rows = np.asarray(initial_indices)[:, :k1]
    expanded = expand(queries, gallery, np.ones(rows.shape), rows, alpha=0)
    return ExactIndex(lambda: iter([gallery])).search(expanded, len(gallery))[1]


if __name__ == "__main__":
    run_script(main)
