"""Compare image encoders by retrieval of the same images: one row of scores per encoder.

    python retrieval/compare_encoders.py --query_dir data/query --gallery_dir data/gallery \\
        --output_dir results/encoders --encoders untrained=W1 trained=W2

encoder -> features of both folders (extract_features.py) -> ranked lists against the classes (evaluate_retrieval.py)
"""

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.text.files import write_json
from retrieval import evaluate_retrieval, extract_features

SCORES = ("Top-1", "Top-5", "mAP", "MAP@R")


@tool
def main(
    *,
    query_dir: Path,  # query images; a folder for each class
    gallery_dir: Path,  # images to search; a folder for each class
    output_dir: Path,  # for features and retrieval.json
    encoders: list[str],  # NAME=WEIGHTS of each; any --vit_checkpoint of extract_features.py
) -> dict[str, dict]:
    """Print the table, write retrieval.json -> encoder: scores."""
    for word in encoders:
        if not all(word.partition("=")):
            raise ValueError(f"--encoders {word}: expected NAME=WEIGHTS")
    query, gallery = (["--image_dir", str(folder)] for folder in (query_dir, gallery_dir))
    scores = {
        name: retrieve(weights, query, gallery, output_dir / name)
        for name, weights in (word.split("=", 1) for word in encoders)
    }
    write_json(output_dir / "retrieval.json", scores)
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


if __name__ == "__main__":
    run_script(main)
