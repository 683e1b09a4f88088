"""Does the gallery answer the queries?

    python retrieval/evaluate_retrieval.py --query_features query.npz --gallery_features gallery.npz --top_k 1 3 5

vectors (Q, D), (N, D) [-> PCA-whitening -> database augmentation] -> index -> ranked lists (Q, K) [-> query expansion
-> re-ranking] -> Top-K, mAP, R-precision, MAP@R, over all queries and over those whose class the gallery has

An image is never its own answer: the same file, by path or bytes, is taken out of a query's list.
"""

import argparse
import os
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from common.cli.errors import run_script
from common.text.files import write_json
from common.training.device import choose_device
from common.vectors.faiss_index import NAMES
from common.vectors.shards import Features, read_features
from retrieval.labels import read_labels
from retrieval.metrics import GroundTruth, Images, query_values, summarise
from retrieval.ranking import RERANKERS, Postprocessing, Ranker

QUERY_ROWS = 1024  # queries ranked at once, if their lists together are no longer than
LIST_PLACES = 2**23


def main(argv: list[str]) -> dict:
    args = read_arguments(argv)
    device = choose_device(args.device)
    print("加载查询集特征...")
    queries = read_features(args.query_features)
    print("加载候选集特征...")
    gallery = read_features(args.gallery_features)
    check_alike(queries, gallery, args)
    truth = GroundTruth(
        Images(read_labels(queries, args.query_labels), *identities(queries)),
        Images(read_labels(gallery, args.gallery_labels), *identities(gallery)),
    )
    print(f"查询集: ({len(queries)}, {queries.width}), 候选集: ({len(gallery)}, {gallery.width})")
    print("构建 FAISS 索引...")
    ranker = Ranker(
        gallery.blocks, len(gallery), gallery.width, postprocessing_of(args), args.index, args.search, device
    )
    print("执行检索...")
    depth = max(args.depth, max(args.top_k), int(truth.true_count.max()))
    values = measure(queries, ranker, truth, depth, args.top_k)
    report = summarise(values, truth, len(gallery)) | {
        "queries": len(queries),
        "gallery": len(gallery),
        "depth": min(depth, len(gallery)),
        "index": args.index,
        "queries_without_class_in_gallery": int((truth.true_count == 0).sum()),
        "copies_left_out": int(truth.copies.sum()),
        "copies_found_by": how_copies_are_found(queries, gallery),
        "postprocessing": ranker.steps,
        "query_features": str(args.query_features),
        "gallery_features": str(args.gallery_features),
        "made_by": gallery.facts,
    }
    print(format_report(report, values, args.top_k))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, report)
    return report


def measure(
    queries: Features, ranker: Ranker, truth: GroundTruth, depth: int, top_k: list[int]
) -> dict[str, np.ndarray]:
    """-> a value (Q,) of each query for each measure."""
    parts, first = [], 0
    for block in queries.blocks(max(1, min(QUERY_ROWS, LIST_PLACES // depth))):
        rows = slice(first, first + len(block))
        places = ranker(block, depth + int(truth.copies[rows].max()))
        relevant = truth.relevant(places, depth, first)
        parts.append(query_values(relevant, truth.true_count[rows], top_k))
        first += len(block)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def format_report(report: dict, values: dict[str, np.ndarray], top_k: list[int]) -> str:
    """The lines of each Top-K, and a table of everything with both denominators."""
    total, missing = report["queries"], report["queries_without_class_in_gallery"]
    lines = [f"Top-{k} 准确率: {report[f'Top-{k}']:.4f} ({int(values[f'Top-{k}'].sum())}/{total})" for k in top_k]
    lines += [
        "",
        f"{'':12}{f'all {total}':>12}{f'answerable {total - missing}':>20}{'95 % interval':>20}{'chance':>10}",
    ]
    for name in values:
        low, high = report["interval_95"][name]
        some = report["answerable"][name]
        lines.append(
            f"{name:12}{report[name]:12.4f}{'-' if some is None else f'{some:.4f}':>20}{f'{low:.4f} .. {high:.4f}':>20}"
            + (f"{report['chance'][name]:10.4f}" if name in report["chance"] else "")
        )
    lines.append(
        f"coverage {report['coverage']:.4f}: {missing} of {total} queries have no image of their class in the gallery"
    )
    lines.append(
        f"{report['copies_left_out']} copies of queries left out of their lists, found by {report['copies_found_by']}"
    )
    if report["depth"] < report["gallery"]:
        lines.append(
            f"lists end at {report['depth']} of {report['gallery']}: right answers behind count as not found in mAP"
        )
    return "\n".join(lines)


def identities(features: Features) -> tuple[list[str], list[str]]:
    """-> digests, absolute paths"""
    return features.digests, [os.path.abspath(path) for path in features.paths]  # noqa: PTH100 - no look at the disk


def how_copies_are_found(*sides: Features) -> str:
    return "path and bytes" if all(any(side.digests) for side in sides) else "path alone (the .npz holds no digests)"


def check_alike(queries: Features, gallery: Features, args: argparse.Namespace) -> None:
    """Vectors of two networks, or made in two ways, have nothing to say to each other."""
    if queries.width != gallery.width:
        raise ValueError(
            f"{args.query_features}: vectors of width {queries.width}, but {gallery.width} in {args.gallery_features}"
        )
    for name in ("key", "pooling", "layer", "flip", "tiles", "image_size"):
        ours, theirs = queries.facts.get(name), gallery.facts.get(name)
        if queries.facts and gallery.facts and ours != theirs:
            what = "by other weights" if name == "key" else f"with {name} {ours}, not {theirs}"
            raise ValueError(f"{args.query_features}: made {what} than {args.gallery_features}; extract both alike")


def postprocessing_of(args: argparse.Namespace) -> Postprocessing:
    return Postprocessing(
        args.pca_whiten,
        args.dba,
        args.alpha_qe,
        args.alpha,
        args.rerank,
        args.rerank_depth,
        args.k1,
        args.k2,
        args.weight,
    )


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluate_retrieval.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--query_features", type=Path, required=True, help=".npz or folder of extract_features.py")
    parser.add_argument("--gallery_features", type=Path, required=True, help="the same weights and settings")
    parser.add_argument("--top_k", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--query_labels", type=Path, help=".csv or .tsv of path and class; otherwise the folder's name")
    parser.add_argument("--gallery_labels", type=Path, help="the same for the gallery")
    parser.add_argument("--output", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--index", default="flat", help=f"{', '.join(NAMES)}, or a FAISS factory string")
    parser.add_argument("--search", default="", help="of an approximate index: nprobe=32, efSearch=128")
    parser.add_argument("--depth", type=int, default=10_000, help="how much of the gallery is ranked, for mAP")
    parser.add_argument(
        "--pca_whiten",
        type=int,
        default=-1,
        metavar="N",
        help="PCA-whitening fitted on the gallery, to N directions; 0: all",
    )
    parser.add_argument("--dba", type=int, default=0, metavar="K", help="gallery vectors joined by their K nearest")
    parser.add_argument("--alpha_qe", type=int, default=0, metavar="K", help="query vectors joined by their K nearest")
    parser.add_argument("--alpha", type=float, default=3.0, help="of both: weight is cosine^alpha; 0: plain mean")
    parser.add_argument("--rerank", choices=RERANKERS, default="none")
    parser.add_argument("--rerank_depth", type=int, default=1000, help="how many of a list are put in a new order")
    parser.add_argument("--k1", type=int, default=20, help="k-reciprocal: neighbours that must be mutual")
    parser.add_argument("--k2", type=int, default=6, help="k-reciprocal: encodings that are averaged")
    parser.add_argument("--lambda", type=float, default=0.3, dest="weight", help="share of the original distance")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    args = parser.parse_args(argv)
    if min(args.top_k) < 1:
        raise ValueError(f"--top_k {min(args.top_k)}: expected at least 1")
    args.top_k = sorted(set(args.top_k))
    return args


if __name__ == "__main__":
    run_script(main)
