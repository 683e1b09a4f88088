"""Which images of an index are like this one, or fit these words?

    python retrieval/search.py --index_dir my_index --image a.jpg --sheet found.png
    python retrieval/search.py --index_dir my_index --text "a red boat on the left"     (of CLIP's vectors)

image or words -> vector (1, D) -> cosines (k,), paths -> lines, or --json; a picture of what was found
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from common.cli.errors import run_script
from common.vectors.extractor import ENCODING_OPTIONS, Extractor
from common.vectors.vector_store import VectorStore
from retrieval.encoders import open_extractor
from retrieval.result_sheet import draw_results


def main(argv: list[str]) -> list[dict]:
    """-> one {query, found: [{image, similarity}]} for each query"""
    args = read_arguments(argv)
    collection, extractor = open_index(args.index_dir, args.vit_checkpoint, args.device)
    queries: list[Path | str] = [*args.image, *args.text]
    scores, paths = collection.search(encode(extractor, args.image, args.text), args.top_k, args.search)
    results = [
        {"query": str(query), "found": [{"image": str(path), "similarity": score} for path, score in zip(*row)]}
        for query, *row in zip(queries, paths, scores)
    ]
    print(json.dumps(results, ensure_ascii=False) if args.json else format_results(results))
    if args.sheet:
        draw_results(args.sheet, queries, paths, scores)
    return results


def open_index(index_dir: Path, weights: str = "", device: str = "auto") -> tuple[VectorStore, Extractor]:
    """An index and what its vectors were made with. weights: where they are now, if not where the index found them."""
    collection = VectorStore(index_dir)
    facts = collection.facts
    weights = weights or facts["weights"]
    extractor = open_extractor(weights, **{way: facts[way] for way in ENCODING_OPTIONS}, device=device)
    if extractor.facts["key"] != facts["key"]:
        raise ValueError(f"{weights}: not the weights that {index_dir} was made with")
    return collection, extractor


def encode(extractor: Extractor, images: list[Path], texts: list[str]) -> np.ndarray:
    """-> (images + texts, D), unit length"""
    parts = [extractor.encode(images)] if images else []
    if texts:
        if extractor.pooling != "own":
            raise ValueError(f"--text: words are compared with pooling 'own' alone, this index has {extractor.pooling}")
        with torch.inference_mode():
            parts.append(extractor.encoder.encode_text(texts).cpu().numpy())
    return np.concatenate(parts)


def format_results(results: list[dict]) -> str:
    lines = []
    for result in results:
        lines.append(f"{result['query']}:")
        lines += [f"{found['similarity']:8.4f}  {found['image']}" for found in result["found"]]
    return "\n".join(lines)


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="search.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--index_dir", type=Path, required=True, help="what build_index.py made")
    parser.add_argument("--image", type=Path, nargs="+", default=[], help="find images like these")
    parser.add_argument("--text", nargs="+", default=[], help="find images that fit these words, each in quotes")
    parser.add_argument("--top_k", type=int, default=10, help="images to find for each")
    parser.add_argument("--search", default="", help="of an approximate index: nprobe=64, efSearch=256")
    parser.add_argument("--sheet", type=Path, help="write a picture of what was found, .png")
    parser.add_argument("--vit_checkpoint", default="", help="where the weights are, if not where the index found them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    if not args.image and not args.text or not all(text.strip() for text in args.text):
        raise ValueError("nothing to search for; give --image FILE or --text WORDS")
    if args.sheet and args.sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet {args.sheet}: is written as PNG; let its name end in .png")
    if args.top_k < 1:
        raise ValueError(f"--top_k {args.top_k}: expected at least 1")
    return args


if __name__ == "__main__":
    run_script(main)
