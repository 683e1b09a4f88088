"""Speed of retrieval: extracting features, searching a million of them, re-ranking and query expansion.

    python benchmarks/retrieval_speed.py features  [--images 256 --source_size 640 --width 384 --image_size 112]
    python benchmarks/retrieval_speed.py search    [--vectors 1000000 --dimensions 1024 --indexes flat ivf hnsw ivfpq]
    python benchmarks/retrieval_speed.py expansion [--vectors 100000 --queries 1000 --loop_queries 20]

features   extract_features.py's way compared with the usual script that reads, resizes and encodes one image at a time,
           and with the network alone on images in memory, which no reader of files can exceed
search     queries per second where an index finds 95 and 99 % of the true ten nearest, memory, and time to build it
expansion  alpha query expansion against the usual loop: distances to the whole gallery for each query, and a full sort

Vectors are points on a curved surface of --inner dimensions with noise, as features are, not a ball of random numbers
in which nothing has neighbours. They are written once, in half precision, block by block, and never held as a whole
but by an index that does so itself.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from transformers import InternVLVisionConfig, InternVLVisionModel

from common.cli.errors import run_script
from common.training.device import choose_device, disable_malloc_trim
from common.vectors.extractor import ExtractorOptions
from common.vectors.faiss_index import ExactIndex, build_index, load_faiss, set_search_params
from common.vectors.shards import l2_normalize
from retrieval.encoders import open_extractor
from retrieval.ranking import expand

ROWS = 65_536
SWEEPS = {  # search parameters of an index, from quick to thorough
    "ivf": [f"nprobe={n}" for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)],
    "hnsw": [f"efSearch={n}" for n in (16, 32, 64, 128, 256, 512, 1024, 2048)],
    "ivfpq": [f"nprobe={n}" for n in (4, 16, 64, 256, 1024)],
}
NEAREST = 10
DRAWN = 256  # different images; the others are links to them, and the usual script reads no more


def main(argv: list[str]) -> dict:
    args = read_arguments(argv)
    args.device = choose_device(args.device)
    if args.device.type == "cpu":
        disable_malloc_trim()
    print(f"{args.device}, {torch.get_num_threads()} threads, {vars(args)}")
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        result = {"features": features, "search": search, "expansion": expansion}[args.part](args, Path(scratch))
    print(json.dumps(result))
    return result


# --- features ---------------------------------------------------------------------------------------------------------


def features(args: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    """-> images per second of each way, in rounds in which they take turns"""
    random = np.random.default_rng(0)
    paths = [scratch / f"{number:05}.jpg" for number in range(args.images)]
    for number, path in enumerate(paths):
        if number >= DRAWN:  # each is read and decoded all the same
            path.hardlink_to(paths[number % DRAWN])
            continue
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((args.source_size * 4 // 3, args.source_size), Image.Resampling.BICUBIC).save(path, quality=90)
    folder = scratch / "vit"
    torch.manual_seed(0)
    InternVLVisionModel(
        InternVLVisionConfig(
            hidden_size=args.width,
            intermediate_size=4 * args.width,
            num_hidden_layers=args.layers,
            num_attention_heads=args.width // 64,
            image_size=args.image_size,
            patch_size=14,
        )
    ).save_pretrained(folder)
    options = ExtractorOptions(batch_size=args.batch_size, num_workers=args.workers, device=str(args.device))
    extractor = open_extractor(str(folder), options)
    batch = torch.randint(256, (args.batch_size, 3, args.image_size, args.image_size), dtype=torch.uint8)
    batch = batch.to(args.device)

    def network_alone() -> np.ndarray:
        return np.concatenate(
            [extractor.encode_pixels(batch, [1] * len(batch)) for _ in range(0, len(paths), len(batch))]
        )

    ways = {
        "one at a time": lambda: one_at_a_time(folder, paths[:DRAWN], args.image_size, args.device),
        "extract_features.py": lambda: extractor.encode(paths),
        "network alone": network_alone,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    vectors = {}
    network_alone()  # warm
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            vectors[name] = way()
            rates[name].append(len(vectors[name]) / (time.perf_counter() - start))
        print(json.dumps(rates), flush=True)
    medians = [statistics.median(values) for values in rates.values()]
    for name, median in zip(rates, medians):
        print(f"{name:22}{median:9.1f} img/s  ({min(rates[name]):.1f} .. {max(rates[name]):.1f})")
    alike = np.sum(vectors["one at a time"] * vectors["extract_features.py"][: len(vectors["one at a time"])], 1)
    print(
        f"{medians[1] / medians[0]:.2f} times one at a time, {medians[1] / medians[2]:.2f} of the network alone; "
        f"cosines of the vectors of both {alike.mean():.4f}, least {alike.min():.4f}"
    )
    return rates


@torch.no_grad()
def one_at_a_time(folder: Path, paths: list[Path], size: int, device: torch.device) -> np.ndarray:
    """What such scripts do: bilinear, one image, every hidden state kept, the mean with the class token in it."""
    model = InternVLVisionModel.from_pretrained(folder).eval().to(device)
    transform = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    found = []
    for path in paths:
        image = transform(Image.open(path).convert("RGB")).unsqueeze(0).to(device)
        vector = model(pixel_values=image, output_hidden_states=True).last_hidden_state.mean(dim=1)
        found.append((vector / vector.norm(dim=-1, keepdim=True)).cpu().numpy()[0])
    return np.stack(found)


# --- search -----------------------------------------------------------------------------------------------------------


def search(args: argparse.Namespace, scratch: Path) -> list[dict]:
    """-> one row for each index and setting"""
    blocks = write_vectors(args, scratch)
    queries = surface(args, args.queries, block=10**6)
    rows, truth = [], None
    for name in ["exact", *[one for one in args.indexes if one != "exact"]]:
        start = time.perf_counter()
        index = build_index(blocks, args.vectors, args.dimensions, name, device=args.device)
        built = time.perf_counter() - start
        size = 0 if isinstance(index, ExactIndex) else stored_bytes(index)
        for setting in SWEEPS.get(name, [""]) if not isinstance(index, ExactIndex) else [""]:
            set_search_params(index, setting)
            rate, places = queries_per_second(index, queries, args.seconds)
            truth = places if truth is None else truth
            recall = float(
                np.mean([len({*row} & {*true}) / NEAREST for row, true in zip(places.tolist(), truth.tolist())])
            )
            rows.append(
                {"index": name, "setting": setting, "recall": recall, "qps": rate, "built_s": built, "bytes": size}
            )
            print(
                f"{name:8}{setting:15}recall@{NEAREST} {recall:.4f}{rate:11.1f} queries/s   built in {built:7.1f} s"
                f"{size / 2**30:8.2f} GiB",
                flush=True,
            )
            print(json.dumps(rows), flush=True)
            if recall > 0.995:
                break
        del index
    for name in dict.fromkeys(row["index"] for row in rows):
        for least in (0.95, 0.99):
            enough = [row for row in rows if row["index"] == name and row["recall"] >= least]
            best = max(enough, key=lambda row: row["qps"], default=None)
            print(
                f"{name:8}at recall {least}: "
                + (f"{best['qps']:.1f} queries/s ({best['setting']})" if best else "never")
            )
    return rows


def queries_per_second(index, queries: np.ndarray, seconds: float) -> tuple[float, np.ndarray]:
    """All queries at once, repeated for some seconds at least."""
    rounds, start = 0, time.perf_counter()
    while not rounds or time.perf_counter() - start < seconds:
        _, places = index.search(queries, NEAREST)
        rounds += 1
    return rounds * len(queries) / (time.perf_counter() - start), places


def stored_bytes(index) -> int:
    """What an index takes, in memory as on disk; a GPU's is counted as its copy on the CPU."""
    faiss, total = load_faiss(), 0

    def count(data: bytes) -> int:
        nonlocal total
        total += len(data)
        return len(data)

    on_gpu = hasattr(faiss, "index_gpu_to_cpu") and "Gpu" in type(index).__name__
    faiss.write_index(faiss.index_gpu_to_cpu(index) if on_gpu else index, faiss.PyCallbackIOWriter(count))
    return total


# --- expansion --------------------------------------------------------------------------------------------------------


def expansion(args: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """-> milliseconds a query of each way"""
    gallery = np.concatenate(list(write_vectors(args, scratch)()))
    queries = surface(args, args.queries, block=10**6)
    index = build_index(lambda: iter([gallery]), *gallery.shape, "exact", device=args.device)
    scores, places = index.search(queries, args.expanding)
    start = time.perf_counter()
    expanded = expand(queries, gallery, scores, places, alpha=0.0, device=args.device)
    _, found = index.search(expanded, 100)
    batched = 1000 * (time.perf_counter() - start) / len(queries)
    start = time.perf_counter()
    expected = expansion_loop(queries[: args.loop_queries], gallery, places)
    loop = 1000 * (time.perf_counter() - start) / args.loop_queries
    same = float((expected[:, :NEAREST] == found[: args.loop_queries, :NEAREST]).mean())
    print(
        f"loop {loop:10.2f} ms a query ({args.loop_queries} of them)\nbatched {batched:7.2f} ms a query "
        f"({len(queries)})\n{loop / batched:.0f} times; {same:.1%} of the first {NEAREST} places agree"
    )
    return {"loop_ms": loop, "batched_ms": batched, "same": same}


def expansion_loop(queries: np.ndarray, gallery: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each query: the mean with its nearest, distances to everything, a sort of everything."""
    rankings = []
    for query, nearest in zip(queries, places):
        expanded = np.mean(np.vstack([query[None], gallery[nearest]]), axis=0)
        rankings.append(np.argsort(np.linalg.norm(gallery - expanded, axis=1)))
    return np.array(rankings)


# --- vectors ----------------------------------------------------------------------------------------------------------


def write_vectors(args: argparse.Namespace, scratch: Path):
    """-> a function that reads them, (up to ROWS, D) float32 at a time"""
    path = scratch / "vectors.npy"
    stored = np.lib.format.open_memmap(path, "w+", np.float16, (args.vectors, args.dimensions))

    def write(start: int) -> None:
        stored[start : start + ROWS] = surface(args, min(ROWS, args.vectors - start), start // ROWS)

    with ThreadPool(4) as pool:
        pool.map(write, range(0, args.vectors, ROWS))
    stored.flush()
    kept = np.load(path, mmap_mode="r")
    return lambda: (l2_normalize(kept[start : start + ROWS]) for start in range(0, args.vectors, ROWS))


def surface(args: argparse.Namespace, count: int, block: int) -> np.ndarray:
    """-> (count, D) unit vectors; a block is the same ones each time."""
    bend = np.random.default_rng(0).standard_normal((2, 256, args.dimensions)).astype(np.float32)
    inner = np.random.default_rng(1).standard_normal((args.inner, 256)).astype(np.float32)
    random = np.random.default_rng([2, block])
    latent = random.standard_normal((count, args.inner), dtype=np.float32) @ inner / args.inner**0.5  # (count, 256)
    points = np.tanh(latent) @ bend[0] / 16
    return l2_normalize(points + args.noise * random.standard_normal((count, args.dimensions), dtype=np.float32))


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["features", "search", "expansion"])
    parser.add_argument("--images", type=int, default=256, help="features: JPEG files to encode")
    parser.add_argument("--source_size", type=int, default=640, help="features: pixels of a file's shorter side")
    parser.add_argument("--width", type=int, default=384, help="features: of the ViT, a multiple of 64")
    parser.add_argument("--layers", type=int, default=6, help="features: of the ViT")
    parser.add_argument("--image_size", type=int, default=112, help="features: pixels, a multiple of 14")
    parser.add_argument("--batch_size", type=int, default=32, help="features: images at once")
    parser.add_argument("--workers", type=int, default=-1, help="features: processes that decode")
    parser.add_argument("--rounds", type=int, default=3, help="features: in which the ways take turns")
    parser.add_argument("--vectors", type=int, default=100_000, help="search, expansion: size of the gallery")
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--inner", type=int, default=24, help="dimensions of the surface that the vectors lie on")
    parser.add_argument("--noise", type=float, default=0.1, help="added in each direction")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--indexes", nargs="+", default=["flat", "ivf", "hnsw", "ivfpq"], help="or FAISS factory strings"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="search: of each index and setting, at least")
    parser.add_argument("--expanding", type=int, default=5, help="expansion: neighbours that join a query")
    parser.add_argument("--loop_queries", type=int, default=20, help="expansion: queries that the loop is timed on")
    parser.add_argument("--scratch", help="folder for temporary files, of vectors x dimensions x 2 bytes")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
