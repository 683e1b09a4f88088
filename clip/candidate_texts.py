"""Candidate texts of an index of metadata, and the images they belong to.

metadata.jsonl, optimized_metadata.jsonl, data.json, or a .txt with one text per line
-> M unique texts, {name of an image: indices of its texts}
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from clip.pairs import DEFAULT_TEXT_FIELDS, IMAGE_KEYS, Entry, texts_of
from common.text.tables import check_record, read_records


def read_texts(
    path: str | Path, text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS
) -> tuple[list[str], dict[str, set[int]], dict[str, str]]:
    """A metadata file -> its unique texts, {name of an image: indices of its texts}, {skipped entry: reason}.

    text_fields: as for clip.pairs.find_pairs.
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


def _read_lines(path: Path) -> Iterable[Entry]:
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
    matches = [texts_of_image[name] for name in below if name in texts_of_image]
    return next(iter(matches or (same_name if len(same_name) == 1 else [set()])))
