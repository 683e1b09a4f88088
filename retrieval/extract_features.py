"""Extract the vector of each image of a folder.

    python retrieval/extract_features.py --image_dir data/train --output features/gallery.npz --vit_checkpoint W
    torchrun --nproc_per_node 8 retrieval/extract_features.py ... --output features/gallery   (a folder: shards)

images -> vectors (N, D), unit length -> shards, in the order of the paths -> one .npz, or a folder for millions

In a program: ViTPFeatureExtractor for single images, extract_dataset_features for a folder.

A stopped run resumes with its first missing shard. Shard k holds the images k * shard_size .. of the sorted list
whichever process makes it, so processes need no communication, and the result does not depend on their number.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from itertools import islice
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveInt
from PIL import Image

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.folders import list_images
from common.images.io import open_image
from common.text.files import read_lines, write_json
from common.text.schema import read_checked
from common.text.values import file_name_of
from common.training.skip_log import report_skipped, write_skipped
from common.vectors.extractor import difference
from common.vectors.feature_files import read_features
from common.vectors.feature_set import FeatureSet
from common.vectors.options import ExtractorOptions
from common.vectors.records import is_milvus, shown_place
from common.vectors.shards import Metadata, Shard, shard_numbers, write_npz, write_shard
from retrieval.build_index import update_index
from retrieval.encoders import open_extractor

RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun


@tool
def main(
    *,
    image_dir: Path,  # images, in all folders below
    image_list: Path | None = None,  # file of paths relative to it: only these, in this order
    output: str,  # a file.npz, a folder of float16 shards, or a place of Milvus, as build_index.py writes to
    vit_checkpoint: str,  # weights of a ViTP, CLIP or style encoder, or a timm model: NAME, NAME:FILE, NAME:random
    options: ExtractorOptions,
    shard_size: PositiveInt = 8192,  # images per shard: the most that a stop loses
    rank: NonNegativeInt = RANK,  # number of this process
    world_size: PositiveInt = WORLD_SIZE,  # number of processes
) -> FeatureSet | None:
    """-> all features, or None while other processes are still at work."""
    if rank >= world_size:
        raise ValueError(f"--rank {rank}: expected 0 to {world_size - 1} with --world_size {world_size}")
    if is_milvus(output):
        if image_list:
            raise ValueError(f"--image_list: is not for {shown_place(output)}, the index of a whole folder")
        update_index(output, image_dir, vit_checkpoint, "", options)
        return None
    return extract(image_dir, image_list, Path(output), vit_checkpoint, options, shard_size, rank, world_size)


def extract(
    image_dir: Path,
    image_list: Path | None,
    output: Path,
    weights: str,
    options: ExtractorOptions,
    shard_size: int,
    rank: int,
    world_size: int,
) -> FeatureSet | None:
    """main() into files."""
    skipped: dict[str, str] = {}
    paths = read_list(image_dir, image_list) if image_list else list_images(image_dir, skipped)
    print(f"找到 {len(paths)} 张图像")
    shards = [paths[start : start + shard_size] for start in range(0, len(paths), shard_size)]
    if rank >= len(shards):
        return None  # more processes than shards
    extractor = open_extractor(weights, options)
    names = "\0".join(os.path.relpath(path, image_dir) for path in paths)
    one_file = output.suffix == ".npz"
    folder = output.with_name(f"{output.name}.parts") if one_file else output
    metadata = extractor.metadata | {
        "image_dir": str(image_dir),
        "images": len(paths),
        "list": hashlib.blake2b(names.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest(),
        "shard_size": shard_size,
        "shards": len(shards),
        "dtype": "float32" if one_file else "float16",
    }
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "metadata.json").is_file():
        write_json(folder / "metadata.json", metadata)
    written = read_checked(folder / "metadata.json", Metadata)  # perhaps by an earlier run
    if differing := difference(written, metadata, metadata):
        raise ValueError(f"{folder}: holds other vectors ({differing}); delete it or choose another --output")
    missing = sorted(set(range(rank, len(shards), world_size)) - set(shard_numbers(folder)))
    rows = extractor.embed([path for number in missing for path in shards[number]], quiet=not missing)
    for number in missing:
        write_shard(folder, number, make_shard(list(islice(rows, len(shards[number]))), metadata["dtype"]))
    features = gather(folder, output if one_file else None, len(shards))
    if features is not None:
        if skipped := skipped | features.skipped:
            write_skipped(output.with_suffix(".skipped.jsonl") if one_file else folder / "skipped.jsonl", skipped)
            report_skipped(skipped)
        print(f"特征已保存到 {output}")
        print(f"特征形状: ({len(features)}, {features.width})")
    return features


class ViTPFeatureExtractor:
    """Vectors of single images, by the weights of any encoder that main() takes.

    select_layer: -1 the last block, -2 the one before, ...
    """

    def __init__(self, vit_checkpoint_path: str | Path, select_layer: int = -1):
        self.extractor = open_extractor(str(vit_checkpoint_path), ExtractorOptions(layer=select_layer))

    def extract_feature(self, image_path: str | Path | Image.Image) -> np.ndarray:
        """A file, or an image already open -> (D,) float32, unit length."""
        if not isinstance(image_path, Image.Image):
            return self.extractor.encode([Path(image_path)])[0]
        pixels = self.extractor.encoder.preprocess(open_image(image_path))
        return self.extractor.encode_pixels(pixels[None], [1])[0]


def extract_dataset_features(
    image_dir: str | Path, output_path: str | Path, vit_checkpoint_path: str | Path, batch_size: int = 32
) -> FeatureSet | None:
    """main() with its other options as they are. output_path: an .npz, as numpy.savez names it."""
    output = str(output_path).removesuffix(".npz") + ".npz"
    flags = {"image_dir": image_dir, "output": output, "vit_checkpoint": vit_checkpoint_path, "batch_size": batch_size}
    return main([f"--{name}={value}" for name, value in flags.items()])


def make_shard(rows: list, dtype: str) -> Shard:
    """rows: image records with their vectors, as Extractor.embed gives them."""
    vectors = [vector for _, vector in rows if vector is not None]
    return Shard(
        np.stack(vectors).astype(dtype) if vectors else np.empty((0, 1), dtype),
        [[str(record.path), record.digest] for record, vector in rows if vector is not None],
        {str(record.path): record.problem for record, vector in rows if vector is None},
    )


def gather(folder: Path, output: Path | None, shards: int) -> FeatureSet | None:
    """The features once every process has written its shards. output: the .npz that the shards are collected in."""
    if output is None:
        return read_features(folder) if len(shard_numbers(folder)) == shards else None
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of processes that end together, one gathers
        if not (folder / "metadata.json").is_file() or len(shard_numbers(folder)) < shards:
            return None
        features = read_features(folder)
        write_npz(output, features)
        shutil.rmtree(folder)
        return features


def read_list(folder: Path, file: Path) -> list[Path]:
    """Lines of a file, each a path relative to `folder` -> paths, in that order."""
    lines = [line.strip() for line in read_lines(file, "--image_list") if line.strip()]
    if not lines:
        raise ValueError(f"{file}: names no image")
    return [folder / file_name_of(line, folder) for line in lines]


if __name__ == "__main__":
    run_script(main)
