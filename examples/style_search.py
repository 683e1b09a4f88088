"""A folder of pictures sorted by style, each group a row of a contact sheet; or those in the style of one picture.

python examples/style_search.py checkpoints/demo/best.pth FOLDER [--sheet styles.png] [--like PICTURE]
"""

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
from style_encoder import encode_folder, encode_images, load_encoder

CPU, SHOWN = torch.device("cpu"), 8  # pictures in a row


@tool
def main(
    weights: str,  # of train.py, or the name of a style encoder on the Hub
    folder: Path,
    *,
    sheet: Path = Path("styles.png"),
    like: Path | None = None,  # in place of groups, the pictures in the style of this one
    distance: float = 0.5,  # 1 - cosine, above which two groups stay apart
) -> dict[str, list[Path]]:
    encoder, _ = load_encoder(weights, CPU)
    paths, vectors = encode_folder(folder, encoder, CPU)  # (N, S) of length 1
    if like:
        similarity = vectors @ encode_images([like], encoder, CPU)[0]
        best = similarity.topk(min(SHOWN, len(paths))).indices
        found = {f"in the style of {like.name}": [paths[i] for i in best]}
    else:
        found = groups(paths, vectors, distance)
    cells = {title: [Cell([open_image(path)], path.name) for path in found[title][:SHOWN]] for title in found}
    save_picture(sheet, contact_sheet(cells, columns=SHOWN, side=128))
    print(*(f"{title}: {', '.join(path.name for path in paths)}" for title, paths in found.items()), sep="\n")
    return found


def groups(paths: list[Path], vectors: torch.Tensor, distance: float) -> dict[str, list[Path]]:
    """The largest first, each from its most typical picture on."""
    cluster = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=distance)
    labels = torch.from_numpy(cluster.fit_predict(vectors.numpy()))
    found = {}
    for number, label in enumerate(torch.bincount(labels).argsort(descending=True), 1):
        members = (labels == label).nonzero()[:, 0]
        typical = members[(vectors[members] @ vectors[members].mean(0)).argsort(descending=True)]
        found[f"style {number}, {len(members)} pictures"] = [paths[i] for i in typical]
    return found


if __name__ == "__main__":
    run_script(main)
