"""A folder of pictures sorted by style, each group a row of a contact sheet; or those in the style of one picture.

python examples/style_search.py checkpoints/demo/best.pth FOLDER [styles.png] [--like PICTURE]
"""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from sklearn.cluster import AgglomerativeClustering

from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from style_encoder import encode_folder, encode_images, load_encoder

CPU, SHOWN = torch.device("cpu"), 8  # pictures in a row


def main(argv: list[str] | None = None) -> dict[str, list[Path]]:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n")[0])
    parser.add_argument("weights", help="of train.py, or the name of a style encoder on the Hub")
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheet", type=Path, nargs="?", default=Path("styles.png"))
    parser.add_argument("--like", type=Path)
    parser.add_argument("--distance", type=float, default=0.5, help="1 - cosine above which two groups stay apart")
    args = parser.parse_args(argv)

    encoder, _ = load_encoder(args.weights, CPU)
    paths, vectors = encode_folder(args.folder, encoder, CPU)  # (N, S) of length 1
    if args.like:
        similarity = vectors @ encode_images([args.like], encoder, CPU)[0]
        best = similarity.topk(min(SHOWN, len(paths))).indices
        found = {f"in the style of {args.like.name}": [paths[i] for i in best]}
    else:
        found = groups(paths, vectors, args.distance)
    cells = {title: [Cell([open_image(path)], path.name) for path in found[title][:SHOWN]] for title in found}
    save_picture(args.sheet, contact_sheet(cells, columns=SHOWN, side=128))
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
    main()
