"""Readers of webdataset shards: order, resuming, speed. Peers that are not installed are skipped, and named.

python benchmarks/streaming.py                             20 shards of 500 pictures of 320 x 240 pixels, drawn first
pip install litdata==0.2.76 megatron-energon==7.4.1        the peers besides webdataset and datasets

Each reader shuffles within 1,000 samples and runs in a process of its own, on one core, from a warm page cache. litdata
reads a format of its own and energon an index, which are made first. Columns: docs/scaling.md.
"""

import argparse
import copy
import functools
import http.server
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.turns import run_forked
from common.images.io import open_image
from common.images.transforms import SampleKey
from common.images.webdataset import read_shard
from common.streaming.counts import count_samples
from common.streaming.order import StreamOrder
from common.streaming.shard_stream import ShardSamples, ShardStream
from common.streaming.urls import expand_urls
from common.training.samplers import DeterministicBatchSampler
from common.training.skip_log import SkipLog

BUFFER, BATCH, WINDOW = 1000, 32, 64
Item = tuple[str, bytes, Callable[[], Any]]  # key, JPEG, the state from which the next sample is read
COLUMNS = {
    "raw": "samples/s",
    "decoded": "decoded/s",
    "correlation": "rank correlation",
    "distance": "distance of neighbours",
    "share": "largest shard of 64",
    "same": "resumed, same world: lost, twice",
    "other": "resumed, 2 -> 1: lost, twice",
    "seconds": "first sample after it, s",
    "prepared": "prepared: s, MB",
}


def draw_shards(folder: Path, shards: int, samples: int) -> None:
    """As img2dataset writes them."""
    for shard in range(shards):
        random = np.random.default_rng(shard)
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(samples):
                key, buffer = f"{shard:05d}{number:04d}", io.BytesIO()
                coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                coarse.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=88)
                record = json.dumps({"caption": f"picture {key}", "key": key}).encode()
                for suffix, content in (("jpg", buffer.getvalue()), ("txt", b"picture"), ("json", record)):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps({"successes": samples}))


# --- readers: (urls, folder, rank, world, state) -> the samples of an epoch from a state on -------------------------


def map_style(urls: list[str], folder: Path, rank: int, world: int, state: int | None) -> Iterator[Item]:
    members = [sample["jpg"] for url in urls for sample in read_shard(Path(url)).values()]
    batches = DeterministicBatchSampler(len(members), BATCH, 0, rank, world)
    batches.set_position(0, state or 0)
    for number, batch in enumerate(batches, state or 0):
        for key in batch:
            yield members[key.index].stem, members[key.index].read(), lambda number=number: number + 1


def ours(urls: list[str], folder: Path, rank: int, world: int, state: int | None) -> Iterator[Item]:
    counts, _ = count_samples(urls, folder / "shards.json", quiet=True)
    order = StreamOrder(tuple(counts), BATCH, 0, lanes=8, buffer=BUFFER)
    batches = ShardStream(order, 0, rank, world)
    batches.set_position(0, state or 0)
    samples = ShardSamples(urls, order, _key_and_picture, SkipLog(), SkipLog())
    loader = DataLoader(samples, batch_sampler=batches, collate_fn=list)
    for number, batch in enumerate(loader, state or 0):
        for key, content in batch:
            yield key, content, lambda number=number: number + 1


def _key_and_picture(sample: dict[str, Any], _: SampleKey) -> tuple[str, bytes]:
    return sample["__key__"], sample["jpg"]


def by_webdataset(urls: list[str], folder: Path, rank: int, world: int, state: int | None) -> Iterator[Item]:
    """It has no state: what was read is read again and dropped."""
    import webdataset

    def share(shards: Any) -> list[Any]:
        return list(shards)[rank::world]

    samples = webdataset.WebDataset(urls, shardshuffle=100, seed=1, nodesplitter=share).shuffle(BUFFER, seed=1)
    for number, sample in enumerate(samples):
        if number >= (state or 0):
            yield sample["__key__"], sample["jpg"], lambda number=number: number + 1


def by_datasets(urls: list[str], folder: Path, rank: int, world: int, state: dict | None) -> Iterator[Item]:
    import datasets
    from datasets.distributed import split_dataset_by_node

    samples = datasets.load_dataset("webdataset", data_files={"train": urls}, split="train", streaming=True)
    samples = samples.cast_column("jpg", datasets.Image(decode=False)).shuffle(seed=1, buffer_size=BUFFER)
    samples = split_dataset_by_node(samples, rank, world)
    if state:
        samples.load_state_dict(state)
    for sample in samples:
        yield Path(sample["__key__"]).name, sample["jpg"]["bytes"], samples.state_dict


def by_litdata(urls: list[str], folder: Path, rank: int, world: int, state: dict | None) -> Iterator[Item]:
    import litdata
    from litdata.utilities.env import _DistributedEnv

    samples = litdata.StreamingDataset(str(folder / "litdata"), shuffle=True, seed=1, drop_last=False)
    samples.distributed_env = _DistributedEnv(world, rank, 1)
    loader = litdata.StreamingDataLoader(samples, batch_size=1, num_workers=0, collate_fn=list)
    if state:
        loader.load_state_dict(state)
    for [sample] in loader:
        yield sample["key"], sample["jpg"], loader.state_dict


def by_energon(urls: list[str], folder: Path, rank: int, world: int, state: Any) -> Iterator[Item]:
    """It decodes pictures itself."""
    from megatron import energon

    workers = energon.WorkerConfig(rank=rank, world_size=world, num_workers=0)
    options = {"shuffle_buffer_size": BUFFER, "max_samples_per_sequence": 100}
    samples = energon.get_train_dataset(str(folder / "energon"), worker_config=workers, batch_size=1, **options)
    loader = energon.get_savable_loader(samples)
    if state:
        loader.restore_state_rank(state)
    for batch in loader:  # without end
        yield Path(batch.__key__[0]).name, b"", loader.save_state_rank


READERS: dict[str, tuple[str, Callable]] = {
    "map-style, local": ("", map_style),
    "streamed": ("", ours),
    "streamed by HTTP": ("", ours),
    "webdataset": ("webdataset", by_webdataset),
    "datasets": ("datasets", by_datasets),
    "litdata": ("litdata", by_litdata),
    "energon": ("megatron.energon", by_energon),
}


# --- their preparation, and what is measured --------------------------------------------------------------------------


def prepare(name: str, urls: list[str], folder: Path) -> tuple[float, float]:
    """-> seconds, MB of what a reader needs besides the shards."""
    started, target = time.perf_counter(), folder / name
    if name == "litdata":
        import litdata

        litdata.optimize(
            fn=_samples_for_litdata, inputs=urls, output_dir=str(target), num_workers=1, chunk_bytes="10MB"
        )
    elif name == "energon":
        target.mkdir()
        for url in urls:
            shutil.copy(url, target)
        started = time.perf_counter()
        words = {"--split-ratio": "1,0,0", "--sample-type": "CaptioningSample"}
        words["--field-map"] = json.dumps({"image": "jpg", "caption": "txt"})
        program = [str(Path(sys.executable).parent / "energon"), "prepare", "--non-interactive"]
        subprocess.run([*program, *sum(words.items(), ()), str(target)], check=True, capture_output=True)
    files = [path for path in target.rglob("*") if path.is_file() and path.suffix != ".tar"] if target.is_dir() else []
    return time.perf_counter() - started, sum(path.stat().st_size for path in files) / 1e6


def _samples_for_litdata(url: str) -> Iterator[dict[str, Any]]:
    for key, members in read_shard(Path(url)).items():
        yield {"key": key, "jpg": members["jpg"].read(), "txt": members["txt"].read()}


def measure(name: str, urls: list[str], folder: Path, samples: int) -> dict[str, Any]:
    """samples: of a shard."""
    reader, total, sharing = READERS[name][1], len(urls) * samples, name in ("litdata", "energon")
    prepared = prepare(name, urls, folder) if sharing else (0.0, 0.0)

    def keys(rank: int, world: int, state: Any = None, count: int = total) -> tuple[list[str], Any]:
        items = []
        for key, _, next_state in reader(urls, folder, rank, world, copy.deepcopy(state)):  # peers change it
            items.append(key)
            if len(items) == count:
                return items, next_state()
        return items, None

    keys(0, 1)  # the page cache, and imports
    started = time.perf_counter()
    whole, _ = keys(0, 1)
    result = {"raw": len(whole) / (time.perf_counter() - started), "prepared": prepared}
    started = time.perf_counter()
    for _, (_, content, _) in zip(range(total), reader(urls, folder, 0, 1, None)):
        if content:
            np.asarray(open_image(Image.open(io.BytesIO(content))))
    result["decoded"] = len(whole) / (time.perf_counter() - started)
    place = np.array([int(key[:5]) * samples + int(key[5:]) for key in whole])
    result |= shuffle_quality(place, total, samples)

    half = total // 2 // BATCH * BATCH
    head, state = keys(0, 1, count=half)
    started = time.perf_counter()
    keys(0, 1, state, 1)
    result["seconds"] = time.perf_counter() - started
    tail, _ = keys(0, 1, state, len(whole) - half)
    result["same"] = losses(head + tail, whole) + (head + tail == whole,)
    try:
        parts = [keys(rank, 2, count=half // 2) for rank in range(2)]
        rest, _ = keys(0, 1, parts[0][1], len(whole) - half)
        result["other"] = losses(parts[0][0] + parts[1][0] + rest, whole)
    except Exception as error:  # a peer that does not know another world raises anything
        result["other"] = type(error).__name__
    return result


def losses(found: list[str], whole: list[str]) -> tuple[int, int]:
    """-> samples that an epoch lacks, and that it has twice."""
    return len(set(whole) - set(found)), len(found) - len(set(found))


def shuffle_quality(place: np.ndarray, total: int, samples: int) -> dict[str, float]:
    """place: in the shards, of each sample of an epoch. Independent samples: 0, total / 3.4 and about 8 of 64."""
    when = np.full(total, np.nan)
    when[place] = np.arange(len(place))
    ranks = np.argsort(np.argsort(place))
    windows = place[: len(place) // WINDOW * WINDOW].reshape(-1, WINDOW) // samples
    return {
        "correlation": abs(float(np.corrcoef(np.arange(len(place)), ranks)[0, 1])),
        "distance": float(np.nanmedian(np.abs(np.diff(when)))),
        "share": float(np.mean([np.bincount(window).max() for window in windows])),
    }


def describe(result: dict[str, Any]) -> list[str]:
    lost, twice, exact = result["same"]
    other = result["other"]
    return [
        f"{result['raw']:,.0f}",
        f"{result['decoded']:,.0f}",
        f"{result['correlation']:.2f}",
        f"{result['distance']:,.0f}",
        f"{result['share']:.0f}",
        "exact" if exact else f"{lost:,}, {twice:,}",
        other if isinstance(other, str) else "exact" if other == (0, 0) else f"{other[0]:,}, {other[1]:,}",
        f"{result['seconds']:.2f}",
        "{:.1f}, {:.1f}".format(*result["prepared"]) if any(result["prepared"]) else "-",
    ]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--samples", type=int, default=500, help="of a shard")
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "shards")
        folder.mkdir()
        draw_shards(folder, args.shards, args.samples)
        handler = functools.partial(QuietHandler, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"| reader | {' | '.join(COLUMNS.values())} |\n|{'---|' * (len(COLUMNS) + 1)}")
        skipped = []
        for name in args.readers:
            package = READERS[name][0]
            if package and not find_spec(package.partition(".")[0]):
                skipped.append(name)
                continue
            urls = expand_urls(str(folder))
            if "HTTP" in name:
                urls = [f"http://127.0.0.1:{server.server_port}/{Path(url).name}" for url in urls]
            row = describe(run_forked(measure, name, urls, Path(work), args.samples))
            print(f"| {name} | {' | '.join(row)} |", flush=True)
        print(f"\nnot installed, skipped: {', '.join(skipped) or 'none'}")


if __name__ == "__main__":
    main()
