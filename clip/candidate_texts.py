"""Which texts are there to choose from, and which images does the metadata give them to?

metadata.jsonl, optimized_metadata.jsonl, data.json, or a .txt with a text a line
-> M different texts, {name of an image: numbers of its texts}
"""

from collections.abc import Sequence
from pathlib import Path

from clip.pairs import DEFAULT_TEXT_FIELDS, IMAGE_KEYS, read_index, texts_of


def read_texts(
    path: str | Path, text_fields: Sequence[str] = DEFAULT_TEXT_FIELDS
) -> tuple[list[str], dict[str, set[int]], dict[str, str]]:
    """A metadata file -> its different texts, {name of an image: numbers of its texts}, {what was left out: why}.

    text_fields: what texts of a line without a text of its own are built from, as in clip/pairs.py.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'} (--metadata)")
    numbers: dict[str, int] = {}
    named: dict[str, set[int]] = {}
    skipped: dict[str, str] = {}
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text (--metadata)") from None
        entries = [(f"{path} line {number}", {"text": line}) for number, line in enumerate(lines, 1) if line.strip()]
    elif path.suffix in (".json", ".jsonl"):
        entries = read_index(path)
    else:
        raise ValueError(f"{path}: --metadata takes a .jsonl, .json or .txt file")
    for where, entry in entries:
        texts = [] if isinstance(entry, str) else texts_of(entry, text_fields)
        if not texts:
            skipped[where] = entry if isinstance(entry, str) else "no text in it"
            continue
        found = {numbers.setdefault(text, len(numbers)) for text in texts}
        name = next((entry[key] for key in IMAGE_KEYS if isinstance(entry.get(key), str)), None)
        if name:
            named.setdefault(Path(name).as_posix(), set()).update(found)
    if not numbers:
        raise ValueError(f"{path}: holds no text; expected lines such as " + '{"file_name": "a.png", "text": "..."}')
    return list(numbers), named, skipped


def true_texts(path: Path, roots: list[Path], named: dict[str, set[int]]) -> set[int]:
    """The texts that the metadata gives an image, found by its path from a root, else by a file name of its own."""
    for root in roots:
        if path.resolve().is_relative_to(root.resolve()):
            found = named.get(path.resolve().relative_to(root.resolve()).as_posix())
            if found:
                return found
    same = [numbers for name, numbers in named.items() if name.rsplit("/", 1)[-1] == path.name]
    return same[0] if len(same) == 1 else set()
