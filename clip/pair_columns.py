"""Columns of a PairTable, from the entries of an index.

entry: name of an image or member of a shard, texts, labels -> ColumnBuilder -> PairColumns, entries without their file

Entries of one image become one pair with the texts of all of them and the labels of the first.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clip.pair_table import LABELS, PairColumns
from common.images.file_lookup import find_files
from common.images.webdataset import TarMember
from common.text.columns import TextColumn, arrow_numbers, dictionary_codes


class ColumnBuilder:
    """Collects entries. root: the folder, normalised, below which the files are."""

    def __init__(self, root: Path):
        self.root = root
        self.shards: dict[tuple[type[TarMember], Path], int] = {}
        self.sources, self.names, self.texts = TextColumn(), TextColumn(), TextColumn()
        self.labels = [TextColumn() for _ in LABELS]
        self.numbers = array("q")  # of each entry: its number, the end of its texts, shard or -1, offset, size

    def add(
        self, number: int, source: str, image: str | TarMember, texts: Sequence[str], labels: Sequence[str]
    ) -> None:
        """number, source: of the entry. image: the name of a file below the root, or a member of a shard. labels: as
        LABELS."""
        for text in texts:
            self.texts.append(text)
        if isinstance(image, str):
            self.names.append(image)
            self.numbers.extend((number, len(self.texts), -1, 0, 0))
        else:
            shard = self.shards.setdefault((type(image), image.shard), len(self.shards))
            self.names.append(image.name)
            self.numbers.extend((number, len(self.texts), shard, image.offset, image.size))
        self.sources.append(source)
        for column, label in zip(self.labels, labels):
            column.append(label)

    def build(self) -> tuple[PairColumns, list[tuple[int, str, str]]]:
        """-> the pairs whose image exists; number, source and file of each entry without one."""
        numbers, ends, *places = np.frombuffer(self.numbers, np.int64).reshape(-1, 5).T
        names, is_file = self.names.to_arrow(), places[0] < 0
        encoded = _take(names, np.flatnonzero(is_file)).dictionary_encode()
        exists, files = find_files(self.root, encoded.dictionary.to_pylist())
        members = np.arange(len(names) - is_file.sum())  # each is an image of its own
        images = np.empty(len(names), np.int64)  # of each entry
        images[is_file], images[~is_file] = dictionary_codes(encoded), len(exists) + members
        files = np.concatenate([files, len(exists) + members])
        usable = np.concatenate([exists, np.ones(len(members), bool)])[images]
        sources = self.sources.to_arrow(binary=True)
        missing = [
            (int(numbers[row]), sources[row].as_py().decode(errors="surrogateescape"), names[row].as_py())
            for row in np.flatnonzero(~usable).tolist()
        ]

        images, first, inverse = np.unique(images[usable], return_index=True, return_inverse=True)
        order = np.argsort(first)  # of the images, by their first entries
        rows = np.flatnonzero(usable)[first[order]]
        pair_of_entry = np.full(len(names), -1)
        pair_of_entry[usable] = np.argsort(order)[inverse]
        columns = PairColumns(
            self.root,
            _take(names, rows),
            *_join_texts(self.texts.to_arrow(), np.repeat(pair_of_entry, np.diff(ends, prepend=0)), len(rows)),
            {name: _take(column.to_arrow(), rows).dictionary_encode() for name, column in zip(LABELS, self.labels)},
            files[images[order]],
            list(self.shards),
            np.stack(places, 1)[rows] if self.shards else None,
        )
        return columns, missing


def _join_texts(
    texts: pa.LargeStringArray, pairs: np.ndarray, count: int
) -> tuple[pa.LargeStringArray, np.ndarray, np.ndarray]:
    """Texts and the pair of each, -1 = none -> the different texts; their codes, pair by pair, without repeats; where
    those of each pair begin (count + 1,)."""
    encoded = texts.dictionary_encode()
    codes = dictionary_codes(encoded)
    if len(pairs) != count or (np.diff(pairs) != 1).any():
        _, first = np.unique(pairs * (len(encoded.dictionary) + 1) + codes, return_index=True)
        first = np.sort(first[pairs[first] >= 0])
        first = first[np.argsort(pairs[first], kind="stable")]
        codes, pairs = codes[first], pairs[first]
    return encoded.dictionary, codes, np.searchsorted(pairs, np.arange(count + 1))


def _take(values: pa.Array, rows: np.ndarray) -> pa.Array:
    return values if len(rows) == len(values) and (np.diff(rows) == 1).all() else values.take(arrow_numbers(rows))
