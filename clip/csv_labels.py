"""Labels of images from a CSV file: classes, splits.

a table with a column of image names and others -> one label per pair, '' for images that are not in the table
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from clip.pairs import IMAGE_KEYS, Pair
from common.cli.settings import unknown_name


def read_column(path: str | Path, column: str, pairs: Sequence[Pair], flag: str) -> list[str]:
    """The labels of one column, in the order of the pairs.

    Images are named as in the index, or by the end of that path, as long as no two images share it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file ({flag})")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or []), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from None
    image_column = next((name for name in columns if name in IMAGE_KEYS), None)
    if image_column is None:
        raise ValueError(f"{path}: no column of images; expected one of {', '.join(IMAGE_KEYS)} in its first line")
    if column not in columns:
        raise ValueError(f"{path}: {unknown_name(column, columns, 'column')} (it has {', '.join(columns)})")
    label_of = {str(PurePosixPath(row[image_column] or "")): (row[column] or "").strip() for row in rows}
    endings = [_endings(pair.key) for pair in pairs]
    counts = Counter(ending for image in endings for ending in image)
    labels = [next((label_of[end] for end in image if end in label_of and counts[end] == 1), "") for image in endings]
    if not any(labels):
        raise ValueError(f"{path}: names none of the {len(pairs)} images; the first is called {pairs[0].key}")
    return labels


def _endings(key: str) -> list[str]:
    """'a/b/c.jpg' -> itself, 'b/c.jpg', 'c.jpg'."""
    parts = PurePosixPath(key).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]
