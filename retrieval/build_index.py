"""Build or update a searchable index of a folder of images.

    python retrieval/build_index.py --index_dir my_index --image_dir photos --vit_checkpoint W     the first time
    python retrieval/build_index.py --index_dir my_index                                           to update it

new and changed images -> vectors -> index; deleted images -> removed
"""

import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.training.skip_log import report_skipped
from common.vectors.extractor import difference
from common.vectors.options import DEFAULT_OPTIONS, ENCODING_OPTIONS, ExtractorOptions
from common.vectors.vector_store import VectorStore
from retrieval.encoders import open_extractor


@tool
def main(
    *,
    index_dir: Path,  # folder of the index
    image_dir: Path | None = None,  # images, in all folders below; needed the first time
    vit_checkpoint: str = "",  # weights as in extract_features.py, needed the first time; later: where they are now
    kind: str = "",  # exact, flat, ivf, hnsw, ivfpq, or a FAISS factory string; default: flat, which is exact
    options: ExtractorOptions,
) -> dict[str, int]:
    """-> counts of images added, removed, and in the index"""
    if (index_dir / "metadata.json").is_file():
        store = VectorStore(index_dir, repair=True)
        if image_dir and image_dir.resolve() != store.image_dir:
            raise ValueError(f"{index_dir}: is the index of {store.image_dir}, not of {image_dir}")
        flags, defaults = {"kind": kind, **vars(options)}, {"kind": "", **vars(DEFAULT_OPTIONS)}
        requested = [name for name in ("kind", *ENCODING_OPTIONS) if flags[name] != defaults[name]]
        if differing := difference(store.metadata, flags, requested):
            raise ValueError(f"{index_dir}: was built with {differing}; make a new index")
        options = replace(options, **{name: store.metadata[name] for name in ENCODING_OPTIONS})
        extractor = open_extractor(vit_checkpoint or store.metadata["weights"], options)
    else:
        if not image_dir or not vit_checkpoint:
            raise ValueError(f"{index_dir}: a new index needs --image_dir and --vit_checkpoint")
        extractor = open_extractor(vit_checkpoint, options)
        store = VectorStore.create(index_dir, image_dir, extractor.metadata, kind or "flat")
    changes = store.update(extractor)
    report_skipped({str(path): reason for path, reason in store.skipped.items()})
    print(f"{index_dir}: {changes['images']} images, {changes['added']} added, {changes['removed']} removed")
    return changes


if __name__ == "__main__":
    run_script(main)
