"""Retrieval by several encoders of the same images: one row of scores per encoder.

    python retrieval/compare_encoders.py --query_dir data/query --gallery_dir data/gallery \\
        --output_dir results/encoders --encoders untrained=W1 trained=W2

encoder -> features of both folders (extract_features.py) -> ranked lists against the classes (evaluate_retrieval.py)
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import run_script
from common.text.files import write_json
from retrieval import evaluate_retrieval, extract_features

SCORES = ("Top-1", "Top-5", "mAP", "MAP@R")


def main(argv: list[str]) -> dict[str, dict]:
    """Print the table, write retrieval.json -> encoder: scores."""
    args = read_arguments(argv)
    images = [("--image_dir", str(folder)) for folder in (args.query_dir, args.gallery_dir)]
    scores = {name: retrieve(weights, *images, args.output_dir / name) for name, weights in args.encoders}
    write_json(args.output_dir / "retrieval.json", scores)
    last = next(reversed(scores.values()))
    print(f"{last['queries']} queries, classes by folder")
    print(f"  {'':12}" + "".join(f"{name:>12}" for name in SCORES))
    for name, row in scores.items():
        print(f"  {name:12}" + "".join(f"{row[score]:12.3f}" for score in SCORES))
    print(f"  {'chance':12}" + "".join(f"{last['chance'][name]:12.3f}" for name in SCORES[:2]))
    return scores


def retrieve(
    weights: str | Path, query: Sequence[str], gallery: Sequence[str], output: Path, labels: Sequence[str] = ()
) -> dict:
    """Scores of one encoder, as evaluate_retrieval.py reports them.

    query, gallery: flags of extract_features.py that name the images. output: prefix of the two feature files.
    labels: flags of evaluate_retrieval.py that name the classes; by default an image's class is its folder.
    """
    features = []
    with contextlib.redirect_stdout(io.StringIO()):
        for side, images in (("query", query), ("gallery", gallery)):
            file = output.with_name(f"{output.name}_{side}.npz")
            file.unlink(missing_ok=True)  # of an earlier run, by other weights
            extract_features.main([*images, "--output", str(file), "--vit_checkpoint", str(weights)])
            features += [f"--{side}_features", str(file)]
        return evaluate_retrieval.main([*features, *labels, "--top_k", "1", "5"])


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--query_dir", type=Path, required=True, help="images that ask; a folder for each class")
    parser.add_argument("--gallery_dir", type=Path, required=True, help="images to search; a folder for each class")
    parser.add_argument("--output_dir", type=Path, required=True, help="features and retrieval.json")
    parser.add_argument("--encoders", nargs="+", required=True, metavar="NAME=WEIGHTS", help="any --vit_checkpoint")
    args = parser.parse_args(argv)
    for word in args.encoders:
        if not all(word.partition("=")):
            raise ValueError(f"--encoders {word}: expected NAME=WEIGHTS")
    args.encoders = [tuple(word.split("=", 1)) for word in args.encoders]
    return args


if __name__ == "__main__":
    run_script(main)
