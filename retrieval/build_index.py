"""Make a folder of images searchable, and keep it so.

    python retrieval/build_index.py --index_dir my_index --image_dir photos --vit_checkpoint W     the first time
    python retrieval/build_index.py --index_dir my_index                                           ever after

images that are new or changed -> vectors -> index; images that are gone -> forgotten
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import run_script
from common.training.skip_log import report_skipped
from common.vectors.extractor import ENCODING_OPTIONS
from common.vectors.faiss_index import NAMES
from common.vectors.vector_store import VectorStore
from retrieval.encoders import add_encoder_flags, extractor_of


def main(argv: list[str]) -> dict[str, int]:
    """-> images added, removed, and there"""
    parser = make_parser()
    args = parser.parse_args(argv)
    if (args.index_dir / "facts.json").is_file():
        collection = VectorStore(args.index_dir)
        remember(args, collection, parser)
        extractor = extractor_of(args)
    else:
        if not args.image_dir or not args.vit_checkpoint:
            raise ValueError(f"{args.index_dir}: a new index needs --image_dir and --vit_checkpoint")
        extractor = extractor_of(args)
        collection = VectorStore.create(args.index_dir, args.image_dir, args.kind or "flat", extractor.facts)
    changes = collection.update(extractor)
    report_skipped(collection.skipped)
    print(f"{args.index_dir}: {changes['images']} images, {changes['added']} added, {changes['removed']} removed")
    return changes


def remember(args: argparse.Namespace, collection: VectorStore, parser: argparse.ArgumentParser) -> None:
    """Settings of an index are those it was made with; what is given otherwise is a mistake."""
    facts = collection.facts
    if args.image_dir and args.image_dir.resolve() != collection.image_dir:
        raise ValueError(f"{args.index_dir}: is the index of {collection.image_dir}, not of {args.image_dir}")
    for name in ("kind", *ENCODING_OPTIONS):
        given = getattr(args, name)
        if given not in (parser.get_default(name), facts[name]):
            raise ValueError(f"{args.index_dir}: is of {name} {facts[name]}, not {given}; make a new index")
        setattr(args, name, facts[name])
    args.vit_checkpoint = args.vit_checkpoint or facts["weights"]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_index.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--index_dir", type=Path, required=True, help="where the index is, or is to be")
    parser.add_argument("--image_dir", type=Path, help="images, looked for in all folders below")
    parser.add_argument("--kind", help=f"{', '.join(NAMES)}, or a FAISS factory string; default flat, which is exact")
    add_encoder_flags(parser, required=False)
    return parser


if __name__ == "__main__":
    run_script(main)
