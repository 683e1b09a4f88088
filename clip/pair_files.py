"""Entries of the files that image-text pairs come in: one record for each image and text, under the names of pairs.py.

folder or file -> (where it stands, {"image_path": name or StoredImage, "captions": [...], ...} or a ValueError), ...
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from operator import methodcaller
from pathlib import Path
from typing import Any

from common.cli.names import unknown_name
from common.images.folders import IMAGE_SUFFIXES
from common.images.parquet import read_parquet
from common.images.webdataset import TarMember, is_complete, read_shard
from common.text.files import decode_text, iter_lines, parse_json, read_lines, split_lines
from common.text.tables import check_record, read_records

INDEX_NAMES = ("data.json", "optimized_metadata.jsonl", "metadata.jsonl", "metadata.csv", "metadata.tsv")
IMAGE_KEYS = ("image_path", "file_name", "image", "filepath")
TEXT_KEYS = ("caption", "captions", "text", "texts")
IMAGE_FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset")
Entry = tuple[str, Any]  # where it comes from; the record, or a ValueError in its place


@dataclass(frozen=True)
class Columns:
    """Columns of a table, by open_clip's names of these settings; '' for those that are found by their usual names."""

    csv_img_key: str = ""  # of image paths; '': image_path, file_name, image, or filepath
    csv_caption_key: str = ""  # of texts; '': caption, captions, text, or texts, or title with filepath
    csv_separator: str = ""  # of .csv and .tsv; '': the one of , ; tab | that the first line has

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Columns":
        return cls(*(settings[field.name] for field in fields(cls)))


USUAL_COLUMNS = Columns()


def find_entries(path: Path, columns: Columns = USUAL_COLUMNS) -> Iterator[Entry]:
    """Entries of a file, or of the first format that a folder holds."""
    if path.is_file():
        return _read_file(path, columns)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder (--data_dir)")
    if indices := [path / name for name in INDEX_NAMES if (path / name).is_file()]:
        return _read_file(indices[0], columns)
    if (path / "images").is_dir() and (path / "captions").is_dir():
        return _read_two_folders(path)
    for suffix in (".tar", ".parquet"):
        if shards := sorted(path.glob(f"*{suffix}")):
            return (entry for shard in shards for entry in _read_file(shard, columns))
    raise FileNotFoundError(
        f"{path}: no pairs of images and texts; expected {', '.join(INDEX_NAMES)}, the folders images/ and captions/, "
        "*.tar, or *.parquet"
    )


def root_of(path: Path) -> Path:
    """The folder that images lie below: `path` itself, or that of the file; of COCO's annotations/ the one above."""
    if path.is_dir():
        return path
    is_coco = path.parent.name == "annotations" and path.name.startswith("captions_")
    return path.parent.parent if is_coco else path.parent


def _read_file(path: Path, columns: Columns) -> Iterator[Entry]:
    match path.suffix.lower():
        case ".tar":
            return _read_shard(path)
        case ".csv" | ".tsv" | ".parquet":
            return _read_table(path, columns)
        case ".token":
            return _read_tokens(path)
        case ".txt":
            return ((f"{path} line {number}", {"text": line}) for number, line in _lines(path))
    return _read_index(path)


def _read_table(path: Path, columns: Columns) -> Iterator[Entry]:
    """Rows under this module's names. open_clip's tables have columns filepath and title."""
    flags = {"csv_img_key": columns.csv_img_key, "csv_caption_key": columns.csv_caption_key}
    required = {name: f"--{flag}" for flag, name in flags.items() if name}
    separator = columns.csv_separator.replace("\\t", "\t")
    if len(separator) > 1:
        raise ValueError(f"--csv_separator '{separator}': expected one character")
    if path.suffix == ".parquet":
        rows: Iterator[Entry] = ((f"{path} row {number}", row) for number, row in enumerate(read_parquet(path), 1))
    else:
        rows = read_records(path, required=required, separator=separator)
    for source, row in rows:
        if isinstance(row, dict):
            for name, kind, usual in zip(flags.values(), ("image_path", "caption"), (IMAGE_KEYS, TEXT_KEYS)):
                if name and name not in row:
                    raise ValueError(f"{path}: {unknown_name(name, row, 'column')} ({required[name]})")
                if name:
                    row = {key: value for key, value in row.items() if key not in usual} | {kind: row[name]}
            if "filepath" in row and "title" in row and not any(key in row for key in TEXT_KEYS):
                row["caption"] = row.pop("title")
        yield source, row


def _read_index(path: Path) -> Iterator[Entry]:
    """JSON or JSON Lines; of COCO's captions an entry for each."""
    for source, record in read_records(path):
        images = record.get("images") if isinstance(record, dict) else None
        if not isinstance(images, list) or not images or not isinstance(images[0], dict):
            yield source, record
        elif isinstance(record.get("annotations"), list):
            yield from _read_coco(path, images, record["annotations"])
        else:
            raise ValueError(
                f"{path}: images without annotations; of a file of all splits, such as Karpathy's, write one split as "
                'data.json: [{"image_path": "...", "captions": ["...", ...]}, ...]'
            )


def _read_coco(path: Path, images: list[Any], annotations: list[Any]) -> Iterator[Entry]:
    split = re.search(r"(train|val|test)\d+", path.stem)
    names = {image["id"]: image.get("file_name") for image in images if isinstance(image, dict) and _is_id(image)}
    first = next((name for name in names.values() if isinstance(name, str)), "")
    folder = _image_folder(path, first, *([split[0], f"images/{split[0]}"] if split else []))
    for number, annotation in enumerate(annotations, 1):
        source = f"{path} annotation {number}"
        if not isinstance(annotation, dict) or not _is_id(annotation, "image_id"):
            yield source, ValueError("no image_id and caption")
        elif not isinstance(name := names.get(annotation["image_id"]), str):
            yield source, ValueError(f"image_id {annotation['image_id']!r} is of no image with a file_name")
        else:
            yield source, {"image_path": folder + name, "caption": annotation.get("caption")}


def _is_id(record: dict[str, Any], key: str = "id") -> bool:
    return type(record.get(key)) in (int, str)


def _read_tokens(path: Path) -> Iterator[Entry]:
    """Flickr8k's and Flickr30k's file of captions: name.jpg#0, a tab, the text."""
    folder = None
    for number, line in _lines(path):
        name, _, text = line.partition("\t")
        name = name.partition("#")[0]
        folder = _image_folder(path, name) if folder is None else folder
        yield f"{path} line {number}", {"image_path": folder + name, "caption": text}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number from 1 and text of each line that is not blank."""
    for number, line in iter_lines(path):
        if isinstance(line, ValueError):
            raise ValueError(f"{path}: {line}")
        yield number, line


def _image_folder(path: Path, name: str, *others: str) -> str:
    """The folder below that of the file in which an image of this name is, with / at its end; '' if in none."""
    folders = (f"{folder}/" for folder in (*others, *IMAGE_FOLDERS))
    return next((folder for folder in folders if name and os.path.isfile(root_of(path) / folder / name)), "")  # noqa: PTH113


def _read_two_folders(root: Path) -> Iterator[Entry]:
    # Names, not paths: a million Path objects take seconds.
    names, with_text = os.listdir(root / "images"), set(os.listdir(root / "captions"))  # noqa: PTH208
    for name in sorted(names):
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" not in IMAGE_SUFFIXES or not stem or name.startswith("."):
            continue
        image, text = f"{root / 'images'}/{name}", f"{stem}.txt"
        if text not in with_text:
            yield image, ValueError(f"no captions/{text} for it")
            continue
        try:
            yield image, {"image_path": f"images/{name}", "captions": read_lines(root / "captions" / text)}
        except (ValueError, OSError) as error:
            yield f"{root / 'captions'}/{text}", ValueError(str(error))


def _read_shard(shard: Path) -> Iterator[Entry]:
    samples = read_shard(shard)
    with shard.open("rb") as file:
        for key, members in samples.items():
            try:
                yield f"{shard}/{key}", entry_of(members, lambda member: member.read_from(file))
            except ValueError as error:
                yield f"{shard}/{key}", error
    if not is_complete(shard):
        yield str(shard), ValueError("the end mark of a tar is missing; what stood behind, if anything, is lost")


def entry_of(
    members: Mapping[str, TarMember], read: Callable[[TarMember], bytes] = methodcaller("read")
) -> dict[str, Any]:
    """The entry of a sample of a shard. members: by their suffixes in lower case, without the dot."""
    images = [members[suffix[1:]] for suffix in IMAGE_SUFFIXES if suffix[1:] in members]
    if not images:
        raise ValueError("no image in this sample")
    record = parse_json(read(members["json"])) if "json" in members else {}
    check_record(record)
    if "txt" in members:
        record["captions"] = split_lines(decode_text(read(members["txt"])))
    return {**{name: value for name, value in record.items() if name not in IMAGE_KEYS}, "image_path": images[0]}
