"""What does a CSV file say about each image: its class, its split?

a table with a column of image names and others -> one word per pair, '' where the table does not have the image
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from clip.pairs import IMAGE_KEYS, Pair
from common.cli.settings import unknown_name


def read_column(path: str | Path, column: str, pairs: Sequence[Pair], flag: str) -> list[str]:
    """The words of one column, in the order of the pairs.

    Images are named as the index names them, or by the end of that path, so long as no two images end alike.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file ({flag})")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from None
    image_column = next((name for name in names if name in IMAGE_KEYS), None)
    if image_column is None:
        raise ValueError(f"{path}: no column of images; expected one of {', '.join(IMAGE_KEYS)} in its first line")
    if column not in names:
        raise ValueError(f"{path}: {unknown_name(column, names, 'column')} (it has {', '.join(names)})")
    said = {str(PurePosixPath(row[image_column] or "")): (row[column] or "").strip() for row in rows}
    endings = [_endings(pair.key) for pair in pairs]
    owners = Counter(ending for one in endings for ending in one)
    words = [next((said[end] for end in one if end in said and owners[end] == 1), "") for one in endings]
    if not any(words):
        raise ValueError(f"{path}: names none of the {len(pairs)} images; the first is called {pairs[0].key}")
    return words


def _endings(key: str) -> list[str]:
    """'a/b/c.jpg' -> itself, 'b/c.jpg', 'c.jpg'."""
    parts = PurePosixPath(key).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]
