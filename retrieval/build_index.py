"""Build or update a searchable index of a folder of images.

    python retrieval/build_index.py --index_dir my_index --image_dir photos --vit_checkpoint W     the first time
    python retrieval/build_index.py --index_dir my_index                                           to update it
    python retrieval/build_index.py --index_dir my_index --features F.npz --vit_checkpoint W   of vectors made before
    torchrun --nproc_per_node 8 retrieval/build_index.py ...                        several processes encode the images

new and changed images -> vectors -> index; deleted images -> removed
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.folders import list_images
from common.training.distributed import rank
from common.training.skip_log import report_skipped
from common.vectors.extractor import Extractor, difference
from common.vectors.feature_files import read_features
from common.vectors.feature_set import FeatureSet
from common.vectors.options import DEFAULT_OPTIONS, ENCODING_OPTIONS, ExtractorOptions
from common.vectors.records import Stamp, shown_place
from common.vectors.shards import l2_normalize
from common.vectors.shares import encode_share, from_first, torchrun_processes
from common.vectors.vector_store import VectorStore, check_kind
from retrieval.encoders import open_extractor

COMPARED, LEAST_COSINE = 4, 0.98  # images encoded again, and their cosines with the vectors of the file


@tool
def main(
    *,
    index_dir: str,  # folder of the index; or of Milvus, a FILE.db or http://HOST:PORT, and #COLLECTION if not "images"
    image_dir: Path | None = None,  # images, in all folders below; needed the first time
    vit_checkpoint: str = "",  # weights as in extract_features.py, needed the first time; later: where they are now
    features: Path | None = None,  # vectors made before, of any layout in common/vectors/feature_files.py
    kind: str = "",  # flat (exact, default), ivf, hnsw, ivfpq, a FAISS factory string; Milvus: flat, ivf, hnsw, auto
    options: ExtractorOptions,
) -> dict[str, int] | None:
    """-> counts of images added, removed, and in the index; None in all of torchrun's processes but the first"""
    if features:
        return index_features(index_dir, features, vit_checkpoint, image_dir, kind, options)
    return update_index(index_dir, image_dir, vit_checkpoint, kind, options)


def update_index(
    place: str, image_dir: Path | None, weights: str, kind: str, options: ExtractorOptions
) -> dict[str, int] | None:
    """The index of a folder of images, made where there is none; by every process of torchrun, of which the first
    alone has it."""
    with torchrun_processes():
        store = None if rank() else find_index(place, image_dir, weights, options)
        if store is not None:
            options = replace(options, **{name: store.metadata[name] for name in ENCODING_OPTIONS})
            weights, kind = weights or store.metadata["weights"], kind or store.metadata["kind"]
        weights, options = from_first((weights, options))
        extractor = open_extractor(weights, options)
        if rank():
            encode_share(None, extractor)
            return None
        if store is None:
            assert image_dir
            kind = kind or "flat"
            check_kind(place, kind, len(list_images(image_dir)), extractor.width)
            store = VectorStore.create(place, image_dir, extractor.metadata, extractor.width, kind)
        elif kind != store.metadata["kind"]:
            check_kind(place, kind, len(store), extractor.width)
            store.engine.change_kind(kind)
        changes = store.update(extractor)
    report_skipped({str(path): reason for path, reason in store.skipped.items()}, listed="")
    print(f"{shown_place(place)}: {changes['images']} images, {changes['added']} added, {changes['removed']} removed")
    return changes


def find_index(place: str, image_dir: Path | None, weights: str, options: ExtractorOptions) -> VectorStore | None:
    """None where there is none, or an empty one of a stopped call, and the flags suffice to make a new one."""
    try:
        store = VectorStore(place, repair=True)
    except FileNotFoundError:
        if not image_dir or not weights:
            raise ValueError(f"{shown_place(place)}: a new index needs --image_dir and --vit_checkpoint") from None
        return None
    if image_dir and weights and not len(store):
        return None
    if image_dir and image_dir.resolve() != store.image_dir:
        raise ValueError(f"{shown_place(place)}: is the index of {store.image_dir}, not of {image_dir}")
    requested = [name for name in ENCODING_OPTIONS if getattr(options, name) != getattr(DEFAULT_OPTIONS, name)]
    if differing := difference(dict(store.metadata), vars(options), requested):
        raise ValueError(f"{shown_place(place)}: was built with {differing}; make a new index")
    return store


def index_features(
    place: str, source: Path, weights: str, image_dir: Path | None, kind: str, options: ExtractorOptions
) -> dict[str, int]:
    """A new index of vectors in a file or folder; ValueError if they are not those of `weights`."""
    try:
        if len(VectorStore(place)):
            raise ValueError(f"{shown_place(place)}: holds an index; --features makes a new one, in another place")
    except FileNotFoundError:
        pass
    features = read_features(source)
    weights = weights or features.metadata.get("weights", "")
    if not weights:
        raise ValueError(f"{source}: does not say which weights made its vectors; name them: --vit_checkpoint")
    own = {name: features.metadata[name] for name in ENCODING_OPTIONS if name in features.metadata}
    extractor = open_extractor(weights, replace(options, **own))
    check_kind(place, kind or "flat", len(features), extractor.width)
    root = (image_dir or Path(features.metadata.get("image_dir") or _common_folder(features.paths))).resolve()
    names = [Path(os.path.relpath(root / path, root)).as_posix() for path in features.paths]
    if outside := next((name for name in names if name.startswith("../")), None):
        raise ValueError(f"{source}: {ascii(outside)} is not below {root}; give a folder above all images: --image_dir")
    paths = [root / name for name in names]
    check_origin(features, source, extractor, paths)
    stamps = [Stamp.of(path, root) if path.is_file() else Stamp(name, 0, 0) for path, name in zip(paths, names)]
    dtype = "float16" if all(part.dtype == np.float16 for part in features.parts) else "float32"
    store = VectorStore.create(place, root, extractor.metadata, extractor.width, kind or "flat", dtype)
    store.add(zip(stamps, (vector for block in features.blocks() for vector in block)))
    print(f"{shown_place(place)}: {len(store)} images, their vectors from {source}")
    return {"added": len(store), "removed": 0, "images": len(store)}


def check_origin(features: FeatureSet, source: Path, extractor: Extractor, paths: list[Path]) -> None:
    """ValueError if the vectors are of other weights: by their metadata, or by encoding a few of the images."""
    weights = extractor.metadata["weights"]
    if "key" in features.metadata:
        if differing := difference(features.metadata, extractor.metadata):
            raise ValueError(f"{source}: its vectors were made with {differing}")
        return
    if features.width != extractor.width:
        raise ValueError(f"{source}: vectors of width {features.width}; {weights} gives {extractor.width}")
    rows = [row for row, path in enumerate(paths) if path.is_file()][:COMPARED]
    if not rows:
        print(f"{source}: none of its images is there, so whether {weights} made it is unknown", file=sys.stderr)
        return
    encoded, given = extractor.encode([paths[row] for row in rows]), l2_normalize(features.all()[rows])
    if (cosine := float((encoded * given).sum(1).min())) < LEAST_COSINE:
        raise ValueError(
            f"{source}: not vectors of {weights}: {paths[rows[0]]} and others, encoded again, have cosines down to "
            f"{cosine:.3f} with theirs; check weights, --pooling and the order of the paths"
        )


def _common_folder(paths: list[str]) -> str:
    """Above all absolute paths; relative ones are below the working directory."""
    return os.path.commonpath([Path(path).parent for path in paths]) if Path(paths[0]).is_absolute() else "."


if __name__ == "__main__":
    run_script(main)
