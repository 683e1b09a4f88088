"""Retrieval metrics compared with established libraries: values and speed.

    python benchmarks/measures_speed.py [--gallery 50000 --queries 2000 --classes 500 --pairs 8000] [--only WAY ...]

classes   queries retrieve images of their class: retrieval's search and metrics, and pytorch-metric-learning's
          AccuracyCalculator (P@1, MAP@R) and scikit-learn's average_precision_score, one query at a time (mAP)
embedding every vector retrieves among all others: common/metrics/embedding.py (also AUC, and intervals over classes),
          and AccuracyCalculator; --images vectors of --width
pairs     images retrieve their text and texts their image: common/metrics/retrieval.py, and open_clip's own
          get_clip_metrics (recall@1 both ways, mean rank), which sorts the whole matrix

Every way sees the same vectors, runs in a process of its own, so that peak memory is its own, and prints its
numbers. The ways take turns; the median of --rounds counts.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from open_clip_train.train import get_clip_metrics
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score

from benchmarks.turns import median_of, peak_memory, run_in_turns
from common.metrics.embedding import retrieval_metrics
from common.metrics.retrieval import rank_both_ways, rank_scores
from common.vectors.feature_set import FeatureSet
from retrieval.evaluate_retrieval import evaluate_queries
from retrieval.metrics import GroundTruth, LabelledImages
from retrieval.ranking import Ranker

WIDTH = 256


def main(argv: list[str]) -> None:
    args = read_arguments(argv)
    found = run_in_turns(measure, args.only, args.rounds, args)
    print(
        f"{args.queries} queries, {args.gallery} of {args.classes} classes; {args.pairs} pairs; {WIDTH} wide; "
        f"{args.images} images of {args.classes}, {args.width} wide; "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for way, runs in found.items():
        (seconds, spread), (peak, _) = median_of(runs, "seconds"), median_of(runs, "peak")
        values = "  ".join(f"{name} {value:.6f}" for name, value in runs[0]["values"].items())
        print(f"{way:34}{seconds:8.2f} s {spread}{peak:9.0f} MiB   {values}")


def measure(name: str, args: argparse.Namespace) -> dict:
    """-> seconds, memory above that of the vectors and libraries, and the values"""
    way, make_data = WAYS[name]
    data = make_data(args)
    few = argparse.Namespace(gallery=64, queries=64, classes=8, pairs=64, images=64, width=16)
    way(*make_data(few))  # the first touch of a library is nobody's cost
    before, clock = peak_memory(), time.perf_counter()
    values = way(*data)
    seconds = time.perf_counter() - clock
    return {"seconds": seconds, "peak": peak_memory() - before, "values": values}


def classes_data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """-> unit vectors and classes of queries, and of the gallery: noise about a centre of each class"""
    random = np.random.default_rng(0)
    centres = random.standard_normal((args.classes, WIDTH), dtype=np.float32)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % args.classes
        vectors = centres[labels] + 3 * random.standard_normal((count, WIDTH), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels

    return *draw(args.queries), *draw(args.gallery)


def pairs_data(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """-> unit vectors of images and of their texts, row by row"""
    torch.manual_seed(0)
    images = torch.randn(args.pairs, WIDTH)
    texts = images + 6 * torch.randn(args.pairs, WIDTH)
    return torch.nn.functional.normalize(images, dim=1), torch.nn.functional.normalize(texts, dim=1)


def ours_data(args: argparse.Namespace) -> tuple[FeatureSet, FeatureSet, list[str], list[str]]:
    """The same as evaluate_retrieval.py holds it: vectors with paths, and labels as texts."""
    queries, labels, gallery, gallery_labels = classes_data(args)
    sides = [
        FeatureSet([vectors], [f"/{side}/{row}.png" for row in range(len(vectors))], [""] * len(vectors))
        for side, vectors in (("query", queries), ("gallery", gallery))
    ]
    return *sides, list(map(str, labels)), list(map(str, gallery_labels))


def ours(queries: FeatureSet, gallery: FeatureSet, labels, gallery_labels, depth: int) -> dict[str, np.ndarray]:
    truth = GroundTruth(
        LabelledImages(labels, queries.digests, queries.paths),
        LabelledImages(gallery_labels, gallery.digests, gallery.paths),
    )
    ranker = Ranker(gallery.blocks, len(gallery), gallery.width)
    return evaluate_queries(queries, ranker, truth, max(depth, int(truth.true_count.max())), [1])


def ours_to_r(*data) -> dict[str, float]:
    values = ours(*data, depth=1)
    return {"P@1": float(values["Top-1"].mean()), "MAP@R": float(values["MAP@R"].mean())}


def metric_learning(queries, labels, gallery, gallery_labels) -> dict[str, float]:
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"), k="max_bin_count", device=torch.device("cpu")
    )
    found = calculator.get_accuracy(queries, labels, gallery, gallery_labels)
    return {"P@1": float(found["precision_at_1"]), "MAP@R": float(found["mean_average_precision_at_r"])}


def ours_whole(*data) -> dict[str, float]:
    return {"mAP": float(ours(*data, depth=len(data[1]))["mAP"].mean())}


def scikit_learn(queries, labels, gallery, gallery_labels) -> dict[str, float]:
    cosines = queries @ gallery.T
    found = [average_precision_score(gallery_labels == label, row) for label, row in zip(labels, cosines)]
    return {"mAP": float(np.mean(found))}


def ours_pairs(images: torch.Tensor, texts: torch.Tensor) -> dict[str, float]:
    ranking = rank_both_ways(images, texts, torch.arange(len(images)))
    scores = rank_scores(*(side.rank for side in ranking))
    return {name: scores[name] for name in ("i2t_r1", "t2i_r1", "i2t_mean_rank", "t2i_mean_rank")}


def open_clip(images: torch.Tensor, texts: torch.Tensor) -> dict[str, float]:
    found = get_clip_metrics(images, texts, torch.tensor(100.0))
    return {
        "i2t_r1": 100 * float(found["image_to_text_R@1"]),
        "t2i_r1": 100 * float(found["text_to_image_R@1"]),
        "i2t_mean_rank": float(found["image_to_text_mean_rank"]),
        "t2i_mean_rank": float(found["text_to_image_mean_rank"]),
    }


def embedding_data(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """-> vectors and classes: noise about a centre of each class"""
    torch.manual_seed(0)
    labels = torch.arange(args.images) % args.classes
    centres, vectors = torch.randn(args.classes, args.width), torch.randn(args.images, args.width).mul_(3)
    for part, classes in zip(vectors.split(1000), labels.split(1000)):
        part += centres[classes]
    return vectors, labels


def ours_embedding(vectors: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    found = retrieval_metrics(vectors, labels, per_class=True)
    return {"P@1": found["precision_at_1"], "MAP@R": found["map_at_r"], "AUC": found["auc"]}


def metric_learning_embedding(vectors: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return metric_learning(torch.nn.functional.normalize(vectors, dim=1), labels, None, None)


WAYS = {
    "embedding: ours": (ours_embedding, embedding_data),
    "embedding: metric learning": (metric_learning_embedding, embedding_data),
    "classes, to R: ours": (ours_to_r, ours_data),
    "classes, to R: metric learning": (metric_learning, classes_data),
    "classes, whole: ours": (ours_whole, ours_data),
    "classes, whole: scikit-learn": (scikit_learn, classes_data),
    "pairs: ours": (ours_pairs, pairs_data),
    "pairs: open_clip": (open_clip, pairs_data),
}


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS), help="these ways")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
