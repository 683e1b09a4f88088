"""Which vector does each image of a folder have?

    python retrieval/extract_features.py --image_dir data/train --output features/gallery.npz --vit_checkpoint W
    torchrun --nproc_per_node 8 retrieval/extract_features.py ... --output features/gallery   (a folder: shards)

images -> vectors (N, D), unit length -> shards, in the order of the paths -> one .npz, or a folder for millions

A call that was stopped goes on where it stood. Shard k holds the images k * shard_size .. of the sorted list whoever
made it, so processes share the work without speaking to each other, and the result does not depend on their number.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import run_script
from common.images.io import list_images
from common.text.files import write_json
from common.training.skip_log import report_skipped, write_skipped
from common.vectors.shards import Features, read_folder, shard_numbers, write_npz, write_shard
from retrieval.encoders import add_encoder_flags, extractor_of


def main(argv: list[str]) -> Features | None:
    """-> all features, or None where other processes are still at work."""
    args = read_arguments(argv)
    paths = read_list(args.image_dir, args.image_list) if args.image_list else list_images(args.image_dir)
    print(f"找到 {len(paths)} 张图像")
    shards = -(-len(paths) // args.shard_size)
    if args.rank >= shards:
        return None  # more processes than shards
    extractor = extractor_of(args)
    one_file = args.output.suffix == ".npz"
    folder = args.output.with_name(f"{args.output.name}.parts") if one_file else args.output
    facts = extractor.facts | {
        "image_dir": str(args.image_dir),
        "images": len(paths),
        "list": digest_of(paths, args.image_dir),
        "shard_size": args.shard_size,
        "shards": shards,
        "dtype": "float32" if one_file else "float16",
    }
    agree_on_facts(folder, facts)
    done = set(shard_numbers(folder))
    mine = [number for number in range(args.rank, shards, args.world_size) if number not in done]
    for number, shard in extractor.shards(paths, mine, args.shard_size, facts["dtype"]):
        write_shard(folder, number, shard)
    features = finish(folder, args.output if one_file else None, shards)
    if features is not None:
        report(features, args.output.with_suffix(".skipped.jsonl") if one_file else folder / "skipped.jsonl", args)
    return features


def finish(folder: Path, output: Path | None, shards: int) -> Features | None:
    """Once every process has made its shards: the features. For one file the shards are gathered into it."""
    if output is None:
        return read_folder(folder) if len(shard_numbers(folder)) == shards else None
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of processes that end together one gathers, the others find nothing left
        if not (folder / "facts.json").is_file() or len(shard_numbers(folder)) < shards:
            return None
        features = read_folder(folder)
        write_npz(output, features)
        shutil.rmtree(folder)
        return features


def agree_on_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write what the vectors are made of, or compare it with what an earlier call or another process wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "facts.json"
    if not file.is_file():
        write_json(file, facts)
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    other = next((name for name in facts if there.get(name) != facts[name]), None)
    if other:
        what = "other images" if other == "list" else f"{other} {there.get(other)}, not {facts[other]}"
        raise ValueError(f"{folder}: holds vectors made otherwise ({what}); delete it or choose another --output")


def report(features: Features, skipped_file: Path, args: argparse.Namespace) -> None:
    if features.skipped:
        write_skipped(skipped_file, features.skipped)
        report_skipped(features.skipped)
    print(f"特征已保存到 {args.output}")
    print(f"特征形状: ({len(features)}, {features.width})")


def read_list(folder: Path, file: Path) -> list[Path]:
    """Lines of a file, each a path relative to `folder` -> paths, in that order."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file (--image_list)")
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{file}: names no image")
    return [folder / line for line in lines]


def digest_of(paths: list[Path], folder: Path) -> str:
    names = "\0".join(os.path.relpath(path, folder) for path in paths)
    return hashlib.blake2b(names.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="extract_features.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--image_dir", type=Path, required=True, help="images, looked for in all folders below")
    parser.add_argument("--image_list", type=Path, help="file of paths relative to it: only these, in this order")
    parser.add_argument("--output", type=Path, required=True, help="a file.npz, or a folder of float16 shards")
    add_encoder_flags(parser)
    parser.add_argument("--shard_size", type=int, default=8192, help="images of a shard: what a stop loses at most")
    parser.add_argument("--rank", type=int, default=int(os.environ.get("RANK", 0)), help="number of this process")
    parser.add_argument("--world_size", type=int, default=int(os.environ.get("WORLD_SIZE", 1)), help="of how many")
    args = parser.parse_args(argv)
    if not 0 <= args.rank < args.world_size:
        raise ValueError(f"--rank {args.rank}: expected 0 to {args.world_size - 1} with --world_size {args.world_size}")
    if args.shard_size < 1:
        raise ValueError(f"--shard_size {args.shard_size}: expected at least 1")
    return args


if __name__ == "__main__":
    run_script(main)
