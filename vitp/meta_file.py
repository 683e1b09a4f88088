"""The meta file of instruction data, and its annotation files: one record of a conversation in each line.

meta.json {name: {root, annotation, repeat_time, max_dynamic_patch, data_augment, length}} -> Source -> lines by place
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from common.cli.paths import find_from_root
from common.text.conversations import parse_conversation
from common.text.files import UTF16_MARKS, decode_text, parse_json, refuse_lfs_pointer
from common.text.schema import read_checked
from common.text.values import file_name_of, text_of

CONVERT = "python vitp/json2jsonl.py OLD NEW.jsonl converts it"


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


def index_lines(source: Source, trimmed: dict[str, str] | None = None) -> tuple[list[tuple[int, int]], dict[str, str]]:
    """-> (number from 1, start in bytes) of each line with a conversation, {"file:number": error} of the others.

    trimmed: gets {"file:number": reason} of those that are used in part.
    """
    refuse_lfs_pointer(source.annotation)
    lines, errors, start = [], {}, 0
    with source.annotation.open("rb") as file:
        if file.read(2) in UTF16_MARKS:
            raise ValueError(f"{source.annotation}: UTF-16, whose lines have no place of their own; {CONVERT}")
        file.seek(0)
        for number, line in enumerate(file, 1):
            key = f"{source.annotation}:{number}"
            try:
                if line.strip():
                    record = parse_json(decode_text(line, number))
                    if number == 1 and isinstance(record, list):
                        raise ValueError(f"a list, not one record a line; {CONVERT}")
                    conversation = parse_conversation(record)
                    lines.append((number, start))
                    if conversation.trimmed and trimmed is not None:
                        trimmed[key] = conversation.trimmed
            except ValueError as error:
                errors[key] = str(error)
            start += len(line)
    return lines, errors


def repeat(lines: list, source: Source) -> list:
    """The lines repeat_time times; a fraction is this share of them, from the start."""
    count = int(len(lines) * source.repeat_time + 1e-6)  # 2.3 * 10 is 22.999...
    return list(islice(cycle(lines), max(1, count)))


def identify_lines(meta: str) -> Iterator[tuple[Any, ...]]:
    """All lines as they are, each with what its entry says of them."""
    for source in read_meta(meta):
        with source.annotation.open("rb") as file:
            yield from ((source.name, source.repeat_time, source.max_tiles, source.data_augment, line) for line in file)


def _source(meta: Path, name: str, entry: MetaEntry) -> Source:
    paths = {}
    for key, is_kind in (("root", Path.is_dir), ("annotation", Path.is_file)):
        try:
            path = Path(text_of(entry.get(key, "")))
        except ValueError as error:
            raise ValueError(f"{meta}: {name}.{key}: {error}") from None
        beside = meta.parent / path
        paths[key] = beside if beside.exists() and not path.exists() else Path(find_from_root(str(path)))
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
