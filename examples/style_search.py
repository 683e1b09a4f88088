"""python examples/style_search.py checkpoints/demo/best.pth FOLDER [--like PICTURE]: a folder sorted by style, each
group a row of a contact sheet; or the pictures in the style of one."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from sklearn.cluster import AgglomerativeClustering

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from model import VisionStyleEncoder
from style_encoder import encode_folder, encode_images

SHOWN = 8  # pictures in a row


@tool
def main(
    weights: str, folder: Path, *, sheet: Path = Path("styles.png"), like: Path | None = None, distance: float = 0.5
) -> dict[str, list[Path]]:
    """distance: 1 - cosine, above which two groups stay apart. like: a picture, in place of groups."""
    encoder = VisionStyleEncoder.from_pretrained(weights)
    paths, vectors = encode_folder(folder, encoder)  # (N, S) of length 1
    found = groups(paths, vectors, distance)
    if like:
        similarity = vectors @ encode_images([like], encoder)[0]
        found = {f"in the style of {like.name}": [paths[i] for i in similarity.topk(min(SHOWN, len(paths))).indices]}
    cells = {title: [Cell([open_image(path)], path.name) for path in found[title][:SHOWN]] for title in found}
    save_picture(sheet, contact_sheet(cells, columns=SHOWN, side=128))
    print(*(f"{title}: {', '.join(path.name for path in paths)}" for title, paths in found.items()), sep="\n")
    return found


def groups(paths: list[Path], vectors: torch.Tensor, distance: float) -> dict[str, list[Path]]:
    """The largest first, each from its most typical picture on."""
    cluster = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=distance)
    labels = torch.from_numpy(cluster.fit_predict(vectors.numpy()))
    found = {}
    for number, label in enumerate(labels.bincount().argsort(descending=True), 1):
        members = (labels == label).nonzero()[:, 0]
        typical = members[(vectors[members] @ vectors[members].mean(0)).argsort(descending=True)]
        found[f"style {number}, {len(members)} pictures"] = [paths[i] for i in typical]
    return found


if __name__ == "__main__":
    run_script(main)
