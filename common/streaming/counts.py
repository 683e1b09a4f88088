"""Numbers of samples of shards, which determine the order of a pass and the length of an epoch.

sizes.json next to the shards       as open_clip's users write it: {"00000.tar": 9321, ...}
00000_stats.json, to 00000.tar      as img2dataset writes it: {"successes": 9321, ...}
otherwise                           each shard is read once, and its number kept in a file of the cache folder
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common.cli.progress_bar import progress_bar
from common.streaming.shard_reader import RetryingFile, ShardError, read_samples
from common.streaming.urls import SUFFIXES, filesystem_of
from common.text.files import parse_json, write_json
from common.text.schema import read_checked
from common.training.loader import in_processes

THREADS = 16  # of requests for small files
HOPELESS = 3  # shards that cannot be read, and none before them that can, end the counting


def count_samples(urls: Sequence[str], index: Path, quiet: bool = False) -> tuple[list[int], dict[str, str]]:
    """-> samples of each shard, {shard that cannot be read: reason}, whose number is 0.

    index: the file that keeps what was counted, with the bytes of each shard.
    """
    stated = _read_stated(urls)
    unknown = [url for url in urls if url not in stated]
    if not unknown:
        return [stated[url] for url in urls], {}
    known = _read_index(index)
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = dict(zip(unknown, pool.map(_size, unknown)))
    missing = [url for url in unknown if known.get(url, {}).get("bytes") != sizes[url] or sizes[url] is None]
    skipped: dict[str, str] = {}
    if missing and not quiet:
        total = sum(filter(None, (sizes[url] for url in missing))) / 1e9
        print(
            f"{len(missing)} shards ({total:.1f} GB) state no number of samples, neither in sizes.json nor in "
            f"NAME_stats.json next to them: read once to count; kept in {index}"
        )
    counted = progress_bar(in_processes(_count, missing), "counting", len(missing), unit="shard", quiet=quiet)
    try:
        for url, (count, reason) in zip(missing, counted):
            known[url] = {"samples": count, "bytes": sizes[url]}
            if reason:
                skipped[url] = reason
                del known[url]
            if len(skipped) == HOPELESS and not known:
                raise ValueError(f"none of the first {HOPELESS} shards can be read; {reason}")
    finally:
        if known:
            index.parent.mkdir(parents=True, exist_ok=True)
            write_json(index, known)
    return [0 if url in skipped else stated.get(url) or known.get(url, {}).get("samples", 0) for url in urls], skipped


def _count(url: str) -> tuple[int, str]:
    """-> samples, why they cannot be counted."""
    try:
        return sum(1 for _ in read_samples(url)), ""
    except ShardError as error:
        return 0, str(error)


def mean_bytes(url: str, count: int) -> float:
    """Bytes of a sample, undecoded, by the size of one shard; 0 where a server does not tell it."""
    return (_size(url) or 0) / max(1, count)


def _read_stated(urls: Sequence[str]) -> dict[str, int]:
    """What files next to the shards say. Where the first shard has none, the others are not tried."""
    sizes = {folder: _read_small(f"{folder}/sizes.json") for folder in dict.fromkeys(map(_folder, urls))}
    stated = {url: sizes[_folder(url)].get(url.rpartition("/")[2]) for url in urls}
    rest = [url for url in urls if stated[url] is None]
    if rest and _read_stats(rest[0]) is not None:
        with ThreadPoolExecutor(THREADS) as pool:
            stated |= dict(zip(rest, pool.map(_read_stats, rest)))
    return {url: count for url, count in stated.items() if type(count) is int and count >= 0}


def _read_stats(url: str) -> Any:
    stem = next(url.removesuffix(suffix) for suffix in (*SUFFIXES, "") if url.endswith(suffix))
    return _read_small(f"{stem}_stats.json").get("successes")


def _read_small(url: str) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    try:
        with RetryingFile(url) as file:
            content = parse_json(file.read())
    except ValueError:  # absent, refused, or something else
        return {}
    return content if isinstance(content, dict) else {}


def _folder(url: str) -> str:
    return url.rpartition("/")[0] or "."


def _size(url: str) -> int | None:
    """Bytes of a shard; None where that is not known."""
    system, path = filesystem_of(url)
    try:
        return system.size(path)
    except Exception:  # each file system raises what its own library does; reading it will say what is wrong
        return None


def _read_index(index: Path) -> dict[str, dict[str, Any]]:
    """{} where the file is absent or damaged: it is made again."""
    try:
        return read_checked(index, dict[str, dict[str, int | None]])
    except (OSError, ValueError):
        return {}
