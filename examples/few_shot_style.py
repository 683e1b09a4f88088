"""New styles from a few pictures each, without training: which of them is this picture?

    python examples/few_shot_style.py checkpoints/demo/best.pth STYLES PICTURE [PICTURE ...]

STYLES holds a folder of some five to ten pictures for each style. A style is the mean of its pictures' style vectors
(Snell et al. 2017); how far to trust it says the share of those pictures that find their own style without themselves.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from few_shot import leave_one_out_accuracy, prototype_similarity
from model import VisionStyleEncoder
from style_encoder import encode_folder, encode_images


@tool
def main(weights: str, styles: Path, pictures: list[Path]) -> list[str]:
    """-> the style of each picture."""
    encoder = VisionStyleEncoder.from_pretrained(weights)
    folders = sorted(folder for folder in styles.iterdir() if folder.is_dir())
    vectors = [encode_folder(folder, encoder)[1] for folder in folders]  # (n, S) each, of length 1
    references = torch.cat(vectors)
    style_ids = torch.arange(len(folders)).repeat_interleave(torch.tensor(list(map(len, vectors))))

    accuracy = leave_one_out_accuracy(references, style_ids)
    trust = "one picture a style says nothing about that" if accuracy is None else f"{accuracy:.1%} right"
    print(f"{len(folders)} styles; their own pictures, each by the others: {trust}, chance {1 / len(folders):.0%}")

    similarity, _ = prototype_similarity(encode_images(pictures, encoder), references, style_ids)
    answers = []
    for picture, row in zip(pictures, similarity):
        best = row.topk(min(3, len(folders)))
        answers.append(folders[best.indices[0]].name)
        print(f"{picture}: " + ", ".join(f"{folders[i].name} {value:.2f}" for value, i in zip(*best)))
    return answers


if __name__ == "__main__":
    run_script(main)
