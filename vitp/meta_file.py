"""The meta file of instruction data, and its annotation files: one record of a conversation in each line.

meta.json {name: {root, annotation, repeat_time, max_dynamic_patch, data_augment, length}} -> Source -> lines by place
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Required

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from common.cli.paths import find_from_root
from common.streaming.conversations import names_shards
from common.streaming.urls import expand_urls
from common.text.schema import read_checked
from common.text.values import file_name_of, text_of


class MetaEntry(TypedDict, total=False):
    """One entry of the meta file, as InternVL has them; other names are ignored."""

    root: str
    annotation: Required[str]
    repeat_time: Annotated[float, Field(gt=0, le=1000)]
    max_dynamic_patch: Annotated[int, Field(gt=0)] | None
    data_augment: bool
    length: Annotated[int, Field(ge=0)] | None


@dataclass(frozen=True)
class Source:
    """One source of samples: an entry with its paths."""

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1  # 2.5: twice and its first half; below 1, this share of the file, from its start
    max_tiles: int | None = None  # in place of --max_dynamic_patch
    data_augment: bool = False
    length: int | None = None  # number of samples, as the meta file states it
    shards: str = ""  # in place of root and annotation: URL, pattern or name of shards that hold both

    def file(self, name: str) -> Path:
        """The image that a record names."""
        return self.root / file_name_of(name, self.root)


def read_meta(path: str | Path) -> list[Source]:
    """Paths in it are relative to the working directory, to the meta file's folder, or to the repository."""
    path = find_from_root(str(path))
    entries = read_checked(path, dict[str, MetaEntry], "--meta_path")
    if not entries:
        raise ValueError(f'{path}: expected {{"name": {{"root": ..., "annotation": ...}}}}')
    return [_source(Path(path), name, entry) for name, entry in entries.items()]


def repeat(count: int, source: Source) -> np.ndarray:
    """Numbers of `count` samples, repeat_time times; a fraction is this share of them, from the start."""
    total = int(count * source.repeat_time + 1e-6)  # 2.3 * 10 is 22.999...
    return np.resize(np.arange(count), max(1, total) if count else 0)


def _source(meta: Path, name: str, entry: MetaEntry) -> Source:
    paths = {}
    for key, is_kind in (("annotation", Path.is_file), ("root", Path.is_dir)):
        try:
            path = Path(text_of(entry.get(key, "")))
        except ValueError as error:
            raise ValueError(f"{meta}: {name}.{key}: {error}") from None
        if key == "annotation" and names_shards(shards := entry["annotation"]):
            return _sharded(meta, name, entry, shards)
        next_to_meta = meta.parent / path
        paths[key] = next_to_meta if next_to_meta.exists() and not path.exists() else Path(find_from_root(str(path)))
        if not is_kind(paths[key]):
            raise FileNotFoundError(f"{path}: no such {key} of '{name}' ({meta}), nor below {meta.parent}")
    return Source(
        name,
        **paths,
        repeat_time=entry.get("repeat_time", 1),
        max_tiles=entry.get("max_dynamic_patch"),
        data_augment=entry.get("data_augment", False),
        length=entry.get("length"),
    )


def _sharded(meta: Path, name: str, entry: MetaEntry, shards: str) -> Source:
    if entry.get("repeat_time", 1) != 1:
        raise ValueError(f"{meta}: {name}.repeat_time: shards are read once in a pass; remove it")
    if "://" not in shards and not Path(expand_urls(shards)[0]).exists():
        shards = str(meta.parent / shards)
    return Source(
        name,
        Path(),
        Path(shards),
        max_tiles=entry.get("max_dynamic_patch"),
        data_augment=entry.get("data_augment", False),
        length=entry.get("length"),
        shards=shards,
    )
