"""Search an index by image or words.

    python retrieval/search.py --index_dir my_index --image a.jpg --sheet results.png
    python retrieval/search.py --index_dir my_index --text "a red boat on the left"     (an index of CLIP vectors)
    python retrieval/search.py --index_dir my_index --image a.jpg --folder 2025/May --since 2025-05-20

image or words -> vector (1, D) -> cosines (k,), paths -> lines, or --json; a contact sheet of the results
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from PIL import Image, ImageOps

from common.cli.errors import printable, run_script
from common.cli.tool_parser import tool
from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from common.training.skip_log import report_skipped
from common.vectors.extractor import Extractor, difference
from common.vectors.filters import Filter
from common.vectors.options import ENCODING_OPTIONS, ExtractorOptions
from common.vectors.records import shown_place
from common.vectors.vector_store import EVERYTHING, VectorStore
from retrieval.encoders import open_extractor

SIDE, FRAME = 160, 4  # pixels of a thumbnail, and of the frame around a query
COLUMNS = 4  # more could not be read on a phone
PAPER, RED = (244, 244, 244), (190, 30, 45)


@tool
def main(
    *,
    index_dir: str,  # written by build_index.py, a folder or a place of Milvus
    image: Sequence[Path] = (),  # find images like these
    text: Sequence[str] = (),  # find images that match these words, each query in quotes
    top_k: PositiveInt = 10,  # images per query
    filter: Filter,
    search_params: str = "",  # of an approximate index: nprobe=64, efSearch=256
    sheet: Path | None = None,  # write a contact sheet of the results, .png
    vit_checkpoint: str = "",  # where the weights are, if they have moved
    device: str = "auto",
    json: bool = False,
) -> list[dict]:
    """-> one {query, found: [{image, similarity}]} for each query"""
    if not (image or text) or not all(words.strip() for words in text):
        raise ValueError("nothing to search for; give --image FILE or --text WORDS")
    if sheet and sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet {sheet}: is written as PNG; let its name end in .png")
    skipped: dict[str, str] = {}
    scores, paths = open_index(index_dir, vit_checkpoint, device).search(
        image, text, top_k, search_params, skipped, filter
    )
    queries: list[Path | str] = [*(path for path in image if str(path) not in skipped), *text]
    report_skipped(skipped, listed="")
    if not any(paths):
        print("no image of the index matches --folder, --label, --since and --until", file=sys.stderr)
    results = [
        {"query": str(query), "found": [{"image": str(path), "similarity": score} for path, score in zip(*matches)]}
        for query, *matches in zip(queries, paths, scores)
    ]
    if json:
        print(dumps(results, ensure_ascii=False))
    else:
        for query, *matches in zip(queries, paths, scores):
            lines = [f"{score:8.4f}  {printable(path)}" for path, score in zip(*matches)]
            print(f"{printable(query)}:", *lines, sep="\n")
    if sheet:
        draw_results(sheet, queries, paths, scores)
    return results


@dataclass
class Searcher:
    """A vector store and the encoder of its vectors."""

    store: VectorStore
    extractor: Extractor

    def search(
        self,
        images: Sequence[Path],
        texts: Sequence[str],
        k: int,
        search_params: str = "",
        skipped: dict[str, str] | None = None,
        filter: Filter = EVERYTHING,
    ) -> tuple[list[list[float]], list[list[Path]]]:
        """-> cosines, highest first, and images: a list of up to k for each query, those of images first.

        skipped: collects the reasons of unreadable images, which are an error where it is None, or nothing is left.
        """
        vectors = [self.extractor.encode(images, skipped)] if images else []
        if skipped and len(skipped) == len(set(images)):
            if not texts:
                raise ValueError(next(iter(skipped.values())))
            vectors = []
        if texts:
            if (pooling := self.extractor.pooling) != "native":
                raise ValueError(f"--text: words are compared with native vectors, this index has pooling {pooling}")
            with torch.inference_mode():
                vectors.append(self.extractor.encoder.encode_text(list(texts)).cpu().numpy())
        return self.store.search(np.concatenate(vectors), k, search_params, filter)


def open_index(place: str, weights: str = "", device: str = "auto", image_dir: str | Path | None = None) -> Searcher:
    """weights, image_dir: where they are now, if they have moved since the index was built."""
    store = VectorStore(place, image_dir)
    options = ExtractorOptions(device=device, **{name: store.metadata[name] for name in ENCODING_OPTIONS})
    extractor = open_extractor(weights or store.metadata["weights"], options)
    if differing := difference(dict(store.metadata), extractor.metadata):
        raise ValueError(f"{shown_place(place)}: was built with {differing} than {extractor.metadata['weights']}")
    return Searcher(store, extractor)


def draw_results(
    file: str | Path, queries: Sequence[Path | str], paths: Sequence[Sequence[Path]], scores: Sequence[Sequence[float]]
) -> None:
    """Contact sheet, PNG: each query and its results, best first; a Path is shown as its image, a string as words."""
    sections = {}
    for query, *matches in zip(queries, paths, scores):
        cells = []
        if isinstance(query, Path):
            cells = [Cell([ImageOps.expand(_thumbnail(query, SIDE - 2 * FRAME), FRAME, RED)], query.name, "query")]
        sections[str(query)] = cells + [
            Cell([_thumbnail(path, SIDE)], path.name, f"{rank}: {score:.4f}")
            for rank, (path, score) in enumerate(zip(*matches), 1)
        ]
    save_picture(file, contact_sheet(sections, COLUMNS, SIDE))


def _thumbnail(path: Path, side: int) -> Image.Image:
    """The whole image in a square; an empty square if the file is gone or broken by now."""
    try:
        return ImageOps.pad(open_image(path, at_least=side), (side, side), color=PAPER)
    except (ValueError, OSError):
        return Image.new("RGB", (side, side), PAPER)


if __name__ == "__main__":
    run_script(main)
