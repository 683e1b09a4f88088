"""Columns of a PairTable, from the entries of an index.

entry: name of an image or member of a shard, texts, labels -> ColumnBuilder -> PairColumns, entries without their file

Entries become Arrow columns in blocks, so that their Python objects are few at any time. Entries of one image become
one pair with the texts of all of them and the labels of the first.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip.pair_table import LABELS, PairColumns
from common.images.file_lookup import find_files
from common.images.webdataset import TarMember

BLOCK = 2**14  # entries
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("source", pa.large_binary()),  # holds paths, of any bytes
        ("name", pa.large_string()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("texts", pa.large_list(pa.large_string())),
        *((label, pa.large_string()) for label in LABELS),
    ]
)


class ColumnBuilder:
    """Collects entries. root: the folder, normalised, below which the files are."""

    def __init__(self, root: Path):
        self.root = root
        self.shards: dict[tuple[type[TarMember], Path], int] = {}
        self.rows: list[tuple] = []
        self.batches: list[pa.RecordBatch] = []

    def add(
        self, number: int, source: str, image: str | TarMember, texts: Sequence[str], labels: Sequence[str]
    ) -> None:
        """number, source: of the entry. image: the name of a file below the root, or a member of a shard. labels: as
        LABELS."""
        place: tuple = (image, -1, 0, 0)
        if isinstance(image, TarMember):
            shard = self.shards.setdefault((type(image), image.shard), len(self.shards))
            place = image.name, shard, image.offset, image.size
        self.rows.append((number, source.encode(errors="surrogateescape"), *place, texts, *labels))
        if len(self.rows) == BLOCK:
            self._flush()

    def build(self) -> tuple[PairColumns, list[tuple[int, str, str]]]:
        """-> the pairs whose image exists; number, source and file of each entry without one."""
        self._flush()
        table = pa.Table.from_batches(self.batches, SCHEMA)
        self.batches.clear()
        is_file = pc.less(table["shard"], 0)
        encoded = _array(pc.if_else(is_file, table["name"], None)).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        exists, files = find_files(self.root, names)
        images = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)  # (n,) of each entry
        members = np.flatnonzero(images < 0)  # each is an image of its own
        images[members] = len(names) + np.arange(len(members))
        usable = np.concatenate([exists, np.ones(len(members), bool)])[images]
        files = np.concatenate([files, len(names) + np.arange(len(members))])
        lost = table.select(["number", "source", "name"]).filter(~usable).to_pylist() if not usable.all() else []
        missing = [(row["number"], row["source"].decode(errors="surrogateescape"), row["name"]) for row in lost]
        table, images = table.filter(usable) if missing else table, images[usable]

        codes, first, inverse = np.unique(images, return_index=True, return_inverse=True)
        order = np.argsort(first)  # of the images, by their first entries
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        entries = table.take(first[order])
        texts, text_codes, text_starts = _join_texts(_array(table["texts"]), rank[inverse], len(order))
        return PairColumns(
            self.root,
            _array(entries["name"]),
            texts,
            text_codes,
            text_starts,
            {label: _array(entries[label]).dictionary_encode() for label in LABELS},
            files[codes[order]],
            list(self.shards),
            np.stack([entries[name].to_numpy() for name in ("shard", "offset", "size")], 1) if self.shards else None,
        ), missing

    def _flush(self) -> None:
        if self.rows:
            arrays = [pa.array(values, field.type) for values, field in zip(zip(*self.rows), SCHEMA)]
            self.batches.append(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
            self.rows.clear()


def _join_texts(lists: pa.Array, images: np.ndarray, count: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Texts and image of each entry -> the different texts; their codes, image by image, without repeats; where those
    of each image begin (count + 1,)."""
    encoded = lists.flatten().dictionary_encode()
    codes = encoded.indices.to_numpy()
    owners = np.repeat(images, lists.value_lengths().to_numpy())
    if len(owners) > count or (np.diff(owners) < 0).any():
        _, first = np.unique(owners * max(1, len(encoded.dictionary)) + codes, return_index=True)
        first.sort()
        first = first[np.argsort(owners[first], kind="stable")]
        codes, owners = codes[first], owners[first]
    return encoded.dictionary, codes, np.searchsorted(owners, np.arange(count + 1))


def _array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
