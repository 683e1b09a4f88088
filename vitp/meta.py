"""The meta file of training data, and the index of its annotation files.

meta.json {name: {root, annotation, repeat_time, max_dynamic_patch, data_augment, length}} -> Source
JSONL file -> where its lines begin; a line is read again whenever its sample is needed
"""

from dataclasses import dataclass
from pathlib import Path

from common.text.conversations import parse_conversation
from common.text.json_text import parse_json, read_json


@dataclass(frozen=True)
class Source:
    """One entry of the meta file."""

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1  # below 1: this share of the file, from its start
    max_tiles: int | None = None  # in place of --max_dynamic_patch
    data_augment: bool = False
    length: int | None = None  # number of samples, as the meta file states it


def read_meta(path: str | Path) -> list[Source]:
    """Paths in it are relative to the working directory or to the meta file's folder."""
    entries = read_json(path, "--meta_path")
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f'{path}: expected {{"name": {{"root": ..., "annotation": ...}}}}')
    return [_source(Path(path), name, entry) for name, entry in entries.items()]


def index_lines(source: Source) -> tuple[list[tuple[int, int]], dict[str, str]]:
    """-> (number from 1, start in bytes) of each line with a conversation, {"file:number": error} of the others."""
    lines, errors, start = [], {}, 0
    with source.annotation.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip():
                    parse_conversation(parse_json(line))
                    lines.append((number, start))
            except ValueError as error:
                errors[f"{source.annotation}:{number}"] = str(error)
            start += len(line)
    return lines, errors


def repeat(lines: list, source: Source) -> list:
    """repeat_time copies; below 1, this share from the start."""
    if source.repeat_time < 1:
        return lines[: max(1, int(len(lines) * source.repeat_time))]
    return lines * int(source.repeat_time)


def _source(meta: Path, name: str, entry: dict) -> Source:
    if not isinstance(entry, dict) or "annotation" not in entry:
        raise ValueError(f"{meta}: '{name}' names no annotation")
    paths = {}
    for key in ("root", "annotation"):
        path = Path(entry.get(key, ""))
        paths[key] = path if path.exists() else meta.parent / path
        if not paths[key].exists():
            raise FileNotFoundError(f"{path}: no such {key} of '{name}' ({meta}), nor below {meta.parent}")
    times, tiles = entry.get("repeat_time", 1), entry.get("max_dynamic_patch")
    if not (isinstance(times, int | float) and times > 0 and (tiles is None or isinstance(tiles, int) and tiles > 0)):
        raise ValueError(f"{meta}: '{name}': repeat_time {times} and max_dynamic_patch {tiles} must be above 0")
    return Source(
        name,
        **paths,
        repeat_time=times,
        max_tiles=tiles,
        data_augment=bool(entry.get("data_augment")),
        length=entry.get("length"),
    )
