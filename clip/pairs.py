"""Image-text pairs of a folder, in the usual formats, and texts without their images.

data.json                                [{"image_path": ..., "caption": ...}]; lists and repeats give several texts
optimized_metadata.jsonl, metadata.jsonl one JSON object per line: file_name and text, or fields that make up texts
metadata.csv, metadata.tsv               tables with a column of images and one of texts
images/ + captions/                      the same names; each line of a .txt is a text
*.tar                                    webdataset shards: 000.jpg with 000.txt, or with 000.json as a metadata line
*.parquet                                tables as Hugging Face has them, with images inside or as files

The first of these that a folder holds is read. Files of any name are read where the file is given: tables as of
open_clip (columns filepath and title), COCO's captions_*.json, Flickr30k's *.token. An entry with a bad line, with
anything but text where a text should be, or without its image is skipped and named.

an index, or a .txt with one text per line -> M unique texts, {name of an image: indices of its texts}
"""

import gc
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from clip.pair_columns import ColumnBuilder
from clip.pair_files import IMAGE_KEYS, TEXT_KEYS, USUAL_COLUMNS, Columns, find_entries, root_of
from clip.pair_table import Pair, PairTable
from common.cli.errors import one_line
from common.cli.paths import find_from_root
from common.images.io import path_below
from common.images.webdataset import TarMember
from common.text.files import check_file
from common.text.tables import check_record
from common.text.values import file_name_of, text_of

__all__ = [
    "Pair",
    "PairTable",
    "TrueTexts",
    "find_clone",
    "find_pairs",
    "has_pairs",
    "read_entry",
    "read_texts",
    "texts_of",
]
CLONE = "AniPersonaCaps"
DEFAULT_TEXT_FIELDS = ("character+appearance", "character+personality")
PLAIN_NAME = re.compile(r"(?!\.{1,2}/)[^/\\:]+(?:/(?!\.{1,2}(?:/|\Z))[^/\\:]+)*")  # normalised, below its folder


def find_pairs(
    data_dir: str | Path, text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS, columns: Columns = USUAL_COLUMNS
) -> tuple[PairTable, dict[str, str]]:
    """A folder, or one of its index files -> pairs in the order of the index, {skipped entry: reason}.

    text_fields: the texts of a metadata line without a text of its own; '+' joins fields to one text, empty fields are
    ignored.
    """
    data_dir = Path(data_dir)
    root = Path(os.path.normpath(root_of(data_dir)))
    builder, skipped = ColumnBuilder(root), list[tuple[int, str, str]]()
    gc.freeze()  # entries come and go, and each collection would look through all that torch has made, too
    try:
        for number, (source, entry) in enumerate(find_entries(data_dir, columns)):
            try:
                check_record(entry)
                builder.add(number, source, *read_entry(entry, root, text_fields))
            except (ValueError, OSError) as error:
                skipped.append((number, source, one_line(error)))
    finally:
        gc.unfreeze()
    pairs, missing = builder.build()
    skipped += [(number, source, _why_missing(root / name)) for number, source, name in missing]
    reasons = {source: reason for _, source, reason in sorted(skipped)}
    if not len(pairs.names):
        source, reason = next(iter(reasons.items()), (data_dir, "holds no entry"))
        raise ValueError(f"{data_dir}: not one usable pair of image and text; {source}: {reason}")
    pa.default_memory_pool().release_unused()  # what the reading took
    return PairTable(pairs), reasons


def has_pairs(data_dir: str | Path) -> bool:
    """Whether a folder holds one of the formats; it may still hold no usable pair."""
    try:
        find_entries(Path(data_dir))
    except FileNotFoundError:
        return False
    return True


def find_clone() -> Path | None:
    """AniPersonaCaps/, as cloned from the Hub, in the working folder, at the repository root, or in clip/."""
    places = Path(find_from_root(CLONE)), Path(__file__).parent / CLONE
    return next((path for path in places if path.is_dir()), None)


def texts_of(entry: dict[str, Any], text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS) -> list[str]:
    """The texts of one entry: its own, or those built from its fields. ValueError names what is no text."""
    if own := _first_key(entry, TEXT_KEYS, (None, "", [])):
        texts = entry[own] if isinstance(entry[own], list) else [entry[own]]
        return [words for text in texts if (words := _one_line(text, own))]
    fields = ([_words(entry, field).rstrip(".") for field in joined.split("+")] for joined in text_fields)
    return list(dict.fromkeys(text for words in fields if (text := ". ".join(filter(None, words)))))


def read_entry(
    entry: dict[str, Any], root: Path, text_fields: Sequence[str]
) -> tuple[str | TarMember, list[str], tuple[str, str, str]]:
    """-> name of the image below the root, or a member of a shard; texts; labels. Whether the file exists is not
    looked up, but where there is nothing else to complain about."""
    image = _image_of(entry, root)
    try:
        texts = texts_of(entry, text_fields)
        if not texts:
            raise ValueError(f"no text: expected one of {', '.join([*TEXT_KEYS, *text_fields])}")
        return image, texts, (_words(entry, "character"), _class_name(entry), _words(entry, "title"))
    except ValueError:
        if isinstance(image, str) and not (root / image).is_file():
            raise ValueError(_why_missing(root / image)) from None
        raise


def _image_of(entry: dict[str, Any], root: Path) -> str | TarMember:
    key = _first_key(entry, IMAGE_KEYS)
    if key is None:
        raise ValueError(
            f"no image: expected one of {', '.join(IMAGE_KEYS)}, or in a table what --csv_img_key and "
            f"--csv_caption_key name; found {', '.join(entry)[:100]}"
        )
    if isinstance(image := entry[key], TarMember):
        return image
    name = file_name_of(image, root, key)
    return name if PLAIN_NAME.fullmatch(name) else path_below(root, name).relative_to(root).as_posix()


def _why_missing(path: Path) -> str:
    try:
        path.is_file()
    except OSError as error:  # such as a name that is too long
        return one_line(error)
    return one_line(f"no such image: {path}")


def _first_key(entry: dict[str, Any], keys: Sequence[str], empty: tuple = (None, "")) -> str | None:
    """The first of the keys under which there is something."""
    for key in keys:
        if entry.get(key) not in empty:
            return key
    return None


def _words(entry: dict[str, Any], key: str) -> str:
    """A field as one line, '' where it is absent."""
    return _one_line(entry[key], key) if entry.get(key) not in (None, "") else ""


def _class_name(entry: dict[str, Any]) -> str:
    """The class that an entry states, by name or number."""
    key = _first_key(entry, ("label", "category"))
    label = entry[key] if key else ""
    return str(label) if type(label) is int else _one_line(label, "label")


def _one_line(text: Any, key: str) -> str:
    return " ".join(text_of(text, key).split())


# --- texts without their images ---------------------------------------------------------------------------------------


def read_texts(
    path: str | Path, text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS, columns: Columns = USUAL_COLUMNS
) -> tuple[list[str], dict[str, set[int]], dict[str, str]]:
    """A metadata file -> its unique texts, {name of an image: indices of its texts}, {skipped entry: reason}.

    text_fields: as for find_pairs.
    """
    path = Path(path)
    check_file(path, "--metadata")
    indices: dict[str, int] = {}
    texts_of_image: dict[str, set[int]] = {}
    skipped: dict[str, str] = {}
    for source, entry in find_entries(path, columns):
        try:
            check_record(entry)
            texts = texts_of(entry, text_fields)
            if not texts:
                raise ValueError("no text in it")
        except ValueError as error:
            skipped[source] = str(error)
            continue
        matches = {indices.setdefault(text, len(indices)) for text in texts}
        if name := next((entry[key] for key in IMAGE_KEYS if isinstance(entry.get(key), str)), None):
            texts_of_image.setdefault(PurePosixPath(name.replace("\\", "/")).as_posix(), set()).update(matches)
    if not indices:
        raise ValueError(f"{path}: holds no text; expected lines such as " + '{"file_name": "a.png", "text": "..."}')
    return list(indices), texts_of_image, skipped


class TrueTexts:
    """Indices of the texts of an image: by its path below one of the roots, else by its file name if that is unique.

    texts_of_image: of read_texts.
    """

    def __init__(self, roots: Sequence[Path], texts_of_image: dict[str, set[int]]):
        self.roots, self.texts_of_image = [root.resolve() for root in roots], texts_of_image
        self.by_name: dict[str, list[set[int]]] = {}
        for name, texts in texts_of_image.items():
            self.by_name.setdefault(name.rpartition("/")[2], []).append(texts)

    def __getitem__(self, path: Path) -> set[int]:
        path = path.resolve()
        below = [path.relative_to(root).as_posix() for root in self.roots if path.is_relative_to(root)]
        by_path = (self.texts_of_image[name] for name in below if name in self.texts_of_image)
        same_name = self.by_name.get(path.name, [])
        return next(by_path, same_name[0] if len(same_name) == 1 else set())
