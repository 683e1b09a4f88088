"""Image-text pairs of a folder, in the usual formats, and texts without their images.

data.json                                [{"image_path": ..., "caption": ...}]; lists and repeats give several texts
optimized_metadata.jsonl, metadata.jsonl one JSON object per line: file_name and text, or fields that make up texts
images/ + captions/                      the same names; each line of a .txt is a text
*.tar                                    webdataset shards: 000.jpg with 000.txt, or with 000.json as a metadata line

The first of these that a folder holds is read. A bad line or a missing image is skipped and named.

an index, or a .txt with one text per line -> M unique texts, {name of an image: indices of its texts}
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from common.cli.paths import find_from_root
from common.images.io import IMAGE_SUFFIXES, path_below
from common.images.webdataset import TarMember, read_shard
from common.text.files import parse_json
from common.text.tables import check_record, read_records

INDEX_NAMES = ("data.json", "optimized_metadata.jsonl", "metadata.jsonl")
IMAGE_KEYS = ("image_path", "file_name", "image", "filepath")
CLONE = "AniPersonaCaps"
TEXT_KEYS = ("caption", "captions", "text", "texts")
DEFAULT_TEXT_FIELDS = ("character+appearance", "character+personality")
Entry = tuple[str, Any]  # where it comes from; the record, or a ValueError in its place


@dataclass(frozen=True)
class Pair:
    """An image and its texts."""

    image: Path | TarMember
    texts: tuple[str, ...]
    character: str = ""  # if known; images of one character are not each other's negatives
    label: str = ""  # class, if known
    title: str = ""  # of the work it comes from, if known
    key: str = ""  # name of the image in the index

    @property
    def folder(self) -> str:
        return PurePosixPath(self.key).parent.name


def find_pairs(
    data_dir: str | Path, text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS
) -> tuple[list[Pair], dict[str, str]]:
    """A folder, or one of its index files -> pairs in the order of the index, {skipped entry: reason}.

    text_fields: the texts of a metadata line without a text of its own; '+' joins fields to one text, empty fields are
    ignored.
    """
    data_dir = Path(data_dir)
    root = data_dir.parent if data_dir.is_file() else data_dir
    pairs: dict[str, Pair] = {}
    skipped: dict[str, str] = {}
    for source, entry in _find_entries(data_dir):
        try:
            check_record(entry)
            key, image = _image_of(entry, root)
            texts = texts_of(entry, text_fields)
            if not texts:
                raise ValueError(f"no text: expected one of {', '.join([*TEXT_KEYS, *text_fields])}")
        except ValueError as error:
            skipped[source] = str(error)
            continue
        pair = pairs.setdefault(
            key,
            Pair(
                image,
                texts=(),
                character=_words(entry, "character"),
                label=_words(entry, "label", "category"),
                title=_words(entry, "title"),
                key=key,
            ),
        )
        pairs[key] = replace(pair, texts=tuple(dict.fromkeys([*pair.texts, *texts])))
    if not pairs:
        source, reason = next(iter(skipped.items()), ("", "the index is empty"))
        raise ValueError(f"{root}: not one usable pair of image and text; {source}: {reason}")
    return list(pairs.values()), skipped


def has_pairs(data_dir: str | Path) -> bool:
    """Whether a folder holds one of the formats; it may still hold no usable pair."""
    try:
        _find_entries(Path(data_dir))
    except FileNotFoundError:
        return False
    return True


def find_clone() -> Path | None:
    """AniPersonaCaps/, as cloned from the Hub, in the working folder, at the repository root, or in clip/."""
    places = Path(find_from_root(CLONE)), Path(__file__).parent / CLONE
    return next((path for path in places if path.is_dir()), None)


def _find_entries(path: Path) -> Iterator[Entry]:
    """Entries of a file, or of the first format that a folder holds."""
    if path.is_file():
        return _read_shards([path]) if path.suffix == ".tar" else read_records(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder (--data_dir)")
    if indices := [path / name for name in INDEX_NAMES if (path / name).is_file()]:
        return read_records(indices[0])
    if (path / "images").is_dir() and (path / "captions").is_dir():
        return _read_two_folders(path)
    if shards := sorted(path.glob("*.tar")):
        return _read_shards(shards)
    raise FileNotFoundError(
        f"{path}: no pairs of images and texts; expected {', '.join(INDEX_NAMES)}, the folders images/ and captions/, "
        "or *.tar"
    )


def texts_of(entry: dict[str, Any], text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS) -> list[str]:
    """The texts of one entry: its own, or those built from its fields."""
    own = next((entry[key] for key in TEXT_KEYS if entry.get(key)), None)
    if own:
        return [words for text in (own if isinstance(own, list) else [own]) if (words := " ".join(str(text).split()))]
    fields = ([_words(entry, field).rstrip(".") for field in joined.split("+")] for joined in text_fields)
    return list(dict.fromkeys(text for words in fields if (text := ". ".join(filter(None, words)))))


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


def _read_two_folders(root: Path) -> Iterator[Entry]:
    captions = {path.stem: path for path in (root / "captions").glob("*.txt")}
    for image in sorted((root / "images").iterdir()):
        if image.suffix.lower() not in IMAGE_SUFFIXES or image.name.startswith("."):
            continue
        if image.stem not in captions:
            yield str(image), ValueError(f"no captions/{image.stem}.txt for it")
            continue
        try:
            lines = captions[image.stem].read_text(encoding="utf-8-sig").splitlines()
            yield str(image), {"image_path": f"images/{image.name}", "captions": list(filter(str.strip, lines))}
        except UnicodeDecodeError:
            yield str(captions[image.stem]), ValueError("not UTF-8 text")


def _read_shards(shards: list[Path]) -> Iterator[Entry]:
    for shard in shards:
        for key, members in read_shard(shard).items():
            try:
                images = [members[suffix[1:]] for suffix in IMAGE_SUFFIXES if suffix[1:] in members]
                if not images:
                    raise ValueError("no image in this sample")
                record = parse_json(members["json"].read()) if "json" in members else {}
                check_record(record)
                if "txt" in members:
                    record["captions"] = members["txt"].read().decode("utf-8", "replace").splitlines()
                entry = {name: value for name, value in record.items() if name not in IMAGE_KEYS}
                yield f"{shard}/{key}", {**entry, "image_path": images[0]}
            except ValueError as error:
                yield f"{shard}/{key}", error


def _words(entry: dict[str, Any], *keys: str) -> str:
    """The first of these fields that is not empty, as one line."""
    return next((" ".join(str(entry[key]).split()) for key in keys if entry.get(key)), "")


# --- texts without their images ---------------------------------------------------------------------------------------


def read_texts(
    path: str | Path, text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS
) -> tuple[list[str], dict[str, set[int]], dict[str, str]]:
    """A metadata file -> its unique texts, {name of an image: indices of its texts}, {skipped entry: reason}.

    text_fields: as for find_pairs.
    """
    path = Path(path)
    if path.suffix not in (".txt", ".json", ".jsonl"):
        raise ValueError(f"{path}: --metadata takes a .jsonl, .json or .txt file")
    indices: dict[str, int] = {}
    texts_of_image: dict[str, set[int]] = {}
    skipped: dict[str, str] = {}
    for source, entry in _read_lines(path) if path.suffix == ".txt" else read_records(path):
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
            texts_of_image.setdefault(Path(name).as_posix(), set()).update(matches)
    if not indices:
        raise ValueError(f"{path}: holds no text; expected lines such as " + '{"file_name": "a.png", "text": "..."}')
    return list(indices), texts_of_image, skipped


def _read_lines(path: Path) -> list[Entry]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text (--metadata)") from None
    return [(f"{path} line {number}", {"text": line}) for number, line in enumerate(lines, 1) if line.strip()]


def true_texts(path: Path, roots: list[Path], texts_of_image: dict[str, set[int]]) -> set[int]:
    """Indices of an image's own texts, by its path below one of the roots, else by its file name if that is unique."""
    path = path.resolve()
    below = [path.relative_to(root.resolve()).as_posix() for root in roots if path.is_relative_to(root.resolve())]
    same_name = [texts for name, texts in texts_of_image.items() if name.rsplit("/", 1)[-1] == path.name]
    by_path = (texts_of_image[name] for name in below if name in texts_of_image)
    return next(by_path, same_name[0] if len(same_name) == 1 else set())
