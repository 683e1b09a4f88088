"""Folders of images and texts, in the formats that people have them in, to one list of pairs.

data.json                                [{"image_path": ..., "caption": ...}]; lists and repeats give several texts
optimized_metadata.jsonl, metadata.jsonl one JSON a line with file_name and text, or fields that texts are built from
images/ + captions/                      the same names; each line of a .txt is a text
*.tar                                    webdataset shards: 000.jpg with 000.txt, or with 000.json as a metadata line

The first of these that a folder holds is read. A bad line or a missing image is left out and named, never fatal alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.images.io import IMAGE_SUFFIXES, path_below
from common.images.webdataset import TarMember, read_shard
from common.text.files import refuse_lfs_pointer
from common.text.json_text import parse_json

INDEX_NAMES = ("data.json", "optimized_metadata.jsonl", "metadata.jsonl")
IMAGE_KEYS = ("image_path", "file_name", "image", "filepath")
TEXT_KEYS = ("caption", "captions", "text", "texts")
DEFAULT_TEXT_FIELDS = ("character+appearance", "character+personality")


@dataclass(frozen=True)
class Pair:
    """An image and what is said of it."""

    image: Path | TarMember
    texts: tuple[str, ...]
    name: str = ""  # of the character, where the data says; images of one character are not each other's negatives
    label: str = ""  # class, where the data says
    title: str = ""  # of the work it comes from
    key: str = ""  # as the index names the image


def find_pairs(
    data_dir: str | Path, text_fields: tuple[str, ...] | list[str] = DEFAULT_TEXT_FIELDS
) -> tuple[list[Pair], dict[str, str]]:
    """A folder, or one of its index files -> pairs in the order of the index, {what was left out: why}.

    text_fields: texts to build from a metadata line that has no text of its own; fields joined by '+' make one text,
    empty fields are skipped.
    """
    data_dir = Path(data_dir)
    if data_dir.is_file() and data_dir.suffix == ".tar":
        return _collect(_read_shards([data_dir]), data_dir.parent, text_fields)
    if data_dir.is_file():
        return _collect(read_index(data_dir), data_dir.parent, text_fields)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such folder (--data_dir)")
    for name in INDEX_NAMES:
        if (data_dir / name).is_file():
            return _collect(read_index(data_dir / name), data_dir, text_fields)
    if (data_dir / "images").is_dir() and (data_dir / "captions").is_dir():
        return _collect(_read_two_folders(data_dir), data_dir, text_fields)
    if shards := sorted(data_dir.glob("*.tar")):
        return _collect(_read_shards(shards), data_dir, text_fields)
    raise FileNotFoundError(
        f"{data_dir}: no pairs of images and texts; looked for {', '.join(INDEX_NAMES)}, the folders images/ and "
        "captions/, and *.tar"
    )


def _collect(entries: Iterator[tuple[str, Any]], root: Path, text_fields) -> tuple[list[Pair], dict[str, str]]:
    """(where, entry or what is wrong with it) -> one pair per image, its texts in order and without repeats."""
    found: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for where, entry in entries:
        try:
            if isinstance(entry, str):
                raise ValueError(entry)
            key, image = _image_of(entry, root)
            texts = texts_of(entry, text_fields)
            if not texts:
                raise ValueError("no text: expected one of " + ", ".join(TEXT_KEYS + tuple(text_fields)))
        except ValueError as error:
            skipped[where] = str(error)
            continue
        known = found.setdefault(key, {"image": image, "texts": [], "entry": entry})
        known["texts"] = list(dict.fromkeys(known["texts"] + texts))
    pairs = []
    for key, one in found.items():
        words = [_word(one["entry"], *keys) for keys in (("character",), ("label", "category"), ("title",))]
        pairs.append(Pair(one["image"], tuple(one["texts"]), *words, key))
    if not pairs:
        first = next(iter(skipped.items()), ("", "the index is empty"))
        raise ValueError(f"{root}: not one usable pair of image and text; {first[0]}: {first[1]}")
    return pairs, skipped


def texts_of(entry: dict[str, Any], text_fields: tuple[str, ...] | list[str] = DEFAULT_TEXT_FIELDS) -> list[str]:
    """The texts of one entry: its own, or those built from its fields."""
    for key in TEXT_KEYS:
        if entry.get(key):
            own = entry[key] if isinstance(entry[key], list) else [entry[key]]
            return [clean for text in own if (clean := " ".join(str(text).split()))]
    built = []
    for fields in text_fields:
        words = [" ".join(str(entry.get(field) or "").split()) for field in fields.split("+")]
        text = ". ".join(word.rstrip(".") for word in words if word)
        if text and text not in built:
            built.append(text)
    return built


def _image_of(entry: dict[str, Any], root: Path) -> tuple[str, Path | TarMember]:
    name = next((entry[key] for key in IMAGE_KEYS if entry.get(key)), None)
    if isinstance(name, TarMember):
        return str(name), name
    if not isinstance(name, str):
        raise ValueError(f"no image: expected one of {', '.join(IMAGE_KEYS)}")
    path = path_below(root, name)
    if not path.is_file():
        raise ValueError(f"no such image: {path}")
    return name, path


def read_index(path: Path) -> Iterator[tuple[str, Any]]:
    refuse_lfs_pointer(path)
    if path.suffix == ".json":
        try:
            content = parse_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
        if not isinstance(content, list):
            raise ValueError(f"{path}: holds a {type(content).__name__}; expected a list of objects")
        for number, entry in enumerate(content):
            yield f"{path} entry {number}", entry if isinstance(entry, dict) else "not an object"
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path} line {number}", _parsed(line)


def _read_two_folders(root: Path) -> Iterator[tuple[str, Any]]:
    captions = {path.stem: path for path in sorted((root / "captions").glob("*.txt"))}
    for image in sorted((root / "images").iterdir()):
        if image.suffix.lower() not in IMAGE_SUFFIXES or image.name.startswith("."):
            continue
        caption = captions.get(image.stem)
        if caption is None:
            yield str(image), f"no captions/{image.stem}.txt beside it"
            continue
        try:
            lines = caption.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            yield str(caption), "not UTF-8 text"
            continue
        yield str(image), {"image_path": f"images/{image.name}", "captions": [line for line in lines if line.strip()]}


def _read_shards(shards: list[Path]) -> Iterator[tuple[str, Any]]:
    suffixes = [suffix[1:] for suffix in IMAGE_SUFFIXES]
    for shard in shards:
        for key, members in read_shard(shard).items():
            where = f"{shard}/{key}"
            image = next((members[suffix] for suffix in suffixes if suffix in members), None)
            if image is None:
                yield where, "no image in this sample"
                continue
            entry = _parsed(members["json"].read()) if "json" in members else {}
            if isinstance(entry, str):
                yield where, entry
                continue
            entry = {name: value for name, value in entry.items() if name not in IMAGE_KEYS}
            if "txt" in members:
                entry["captions"] = members["txt"].read().decode("utf-8", "replace").splitlines()
            yield where, {**entry, "image_path": image}


def _parsed(line: bytes) -> dict[str, Any] | str:
    """A JSON object, or what is wrong with it."""
    try:
        entry = parse_json(line)
    except ValueError as error:
        return str(error)
    return entry if isinstance(entry, dict) else "not a JSON object"


def _word(entry: dict[str, Any], *keys: str) -> str:
    return next((" ".join(str(entry[key]).split()) for key in keys if entry.get(key)), "")
