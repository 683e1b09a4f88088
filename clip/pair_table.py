"""Table of image-text pairs in columns: a sequence of pairs, each made when it is read.

PairColumns (pair_columns.py), names and texts in Arrow, numbers in numpy
  -> PairTable: table[i] -> Pair; table.select(indices) -> PairTable on the same columns
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.images.webdataset import TarMember
from common.text.columns import TextColumn, arrow_numbers, dictionary_codes

LABELS = ("character", "label", "title")
MEASURED = 1000  # files whose size is part of a digest; of a million on a network disk it would take minutes


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
        return folder_of(self.key)


@dataclass(frozen=True)
class PairColumns:
    """N images, the U different texts, and which of them the images have."""

    root: Path
    names: pa.LargeStringArray  # (N,) of the images, below the root or in their shard
    texts: pa.LargeStringArray  # (U,)
    text_codes: np.ndarray  # (M,) in 0..U-1, of all images
    text_starts: np.ndarray  # (N + 1,) of each image's part of text_codes
    labels: dict[str, pa.DictionaryArray]  # (N,) for each of LABELS
    files: np.ndarray  # (N,) equal for links to one file
    shards: Sequence[tuple[type[TarMember], Path]] = ()
    places: np.ndarray | None = None  # (N, 3) shard or -1, offset, size; None where all images are files

    def image(self, row: int) -> Path | TarMember:
        name = self.names[row].as_py()
        if self.places is None or self.places[row, 0] < 0:
            return self.root / name
        shard, offset, size = self.places[row].tolist()
        kind, path = self.shards[shard]
        return kind(path, name, offset, size)


class PairTable(Sequence[Pair]):
    """Pairs, each of an image of its own."""

    def __init__(self, columns: PairColumns, rows: np.ndarray | None = None):
        """rows (N,): of the columns; None = all."""
        self.columns = columns
        self.rows = np.arange(len(columns.names)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """A Pair; of a slice, a PairTable."""
        if isinstance(index, slice):
            return PairTable(self.columns, self.rows[index])
        columns, row = self.columns, int(self.rows[index])
        image = columns.image(row)
        codes = columns.text_codes[columns.text_starts[row] : columns.text_starts[row + 1]]
        return Pair(
            image,
            tuple(columns.texts[code].as_py() for code in codes.tolist()),
            **{label: column[row].as_py() for label, column in columns.labels.items()},
            key=columns.names[row].as_py() if isinstance(image, Path) else str(image),
        )

    def select(self, indices: Any) -> "PairTable":
        """indices: numbers (M,), or a mask (N,) of bool."""
        return PairTable(self.columns, self.rows[np.asarray(indices)])

    @property
    def total(self) -> int:
        """Pairs of the whole table, of which these may be a part."""
        return len(self.columns.names)

    @property
    def files(self) -> np.ndarray:
        """(N,) equal for links to one file."""
        return self.columns.files[self.rows]

    def without(self, images: Collection[str]) -> "PairTable":
        """Those whose image, as str() names it, is not among these."""
        columns, ends = self.columns, TextColumn()
        for image in images:
            parts = image.split("/")
            for start in range(len(parts)):
                ends.append("/".join(parts[start:]))
        named = np.arange(len(columns.names))  # rows that may be meant; the names in tables are those of columns
        if all(kind is TarMember for kind, _ in columns.shards):
            rows = pc.indices_nonzero(pc.is_in(columns.names, ends.to_arrow()))
            named = np.frombuffer(rows.buffers()[1], np.uint64, len(rows))
        chosen = np.ones(len(columns.names), bool)
        for row in named.tolist() if images else ():
            chosen[row] = str(columns.image(row)) not in images
        return self.select(chosen[self.rows])

    @property
    def images(self) -> "Images":
        return Images(self)

    def values(self, field: str) -> list[str]:
        """One field of every pair: key, character, label, title or folder."""
        if field in LABELS:
            return self.columns.labels[field].take(arrow_numbers(self.rows)).to_pylist()
        if self.columns.places is None:
            keys = self.columns.names.take(arrow_numbers(self.rows)).to_pylist()
        else:
            keys = [pair.key for pair in self]
        return [folder_of(key) for key in keys] if field == "folder" else keys

    def text_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """-> codes (M,) of the texts of all pairs, equal for equal texts; the number of the pair (M,) of each."""
        starts = self.columns.text_starts[self.rows]
        counts = self.columns.text_starts[self.rows + 1] - starts
        pair_of_text = np.repeat(np.arange(len(self)), counts)
        first = np.repeat(starts - np.cumsum(counts) + counts, counts)  # of the codes of a pair, less those before it
        return self.columns.text_codes[first + np.arange(len(first))], pair_of_text

    def texts_of(self, codes: np.ndarray) -> list[str]:
        return self.columns.texts.take(arrow_numbers(codes)).to_pylist()

    def unique_texts(self) -> pa.LargeStringArray:
        """The different texts of all pairs."""
        return self.columns.texts.take(arrow_numbers(np.unique(self.text_codes()[0])))

    def split_words(self) -> pa.LargeStringArray:
        """(N,) what ties a pair to others: its character, or its first text."""
        first = self.columns.text_codes[self.columns.text_starts[self.rows]]
        texts = self.columns.texts.take(arrow_numbers(first))
        characters = self.columns.labels["character"].take(arrow_numbers(self.rows)).dictionary_decode()
        return pc.if_else(pc.equal(characters, ""), texts, characters)

    def describe(self) -> str:
        """Number of pairs and a digest of all that decides what is trained: names, texts, characters, and the sizes of
        MEASURED files."""
        columns, digest = self.columns, blake2b(digest_size=6)
        for strings in (columns.names, columns.texts, columns.labels["character"].dictionary):
            _hash_strings(digest, strings)
        arrays = [self.rows, columns.text_codes, columns.text_starts, dictionary_codes(columns.labels["character"])]
        if columns.places is not None:
            arrays.append(columns.places)
            digest.update(repr([path.name for _, path in columns.shards]).encode(errors="surrogateescape"))
        for array in arrays:
            digest.update(np.ascontiguousarray(array))
        sampled = np.unique(np.linspace(0, len(self) - 1, min(len(self), MEASURED)).astype(int))
        images = (self.columns.image(int(self.rows[index])) for index in sampled)
        digest.update(repr([image.stat().st_size for image in images if isinstance(image, Path)]).encode())
        return f"{len(self)} samples, digest {digest.hexdigest()}"


class Images(Sequence[Path | TarMember]):
    """The images of a table, for those who do not need the texts."""

    def __init__(self, table: PairTable):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        """An image; of a slice, a list of them."""
        rows, image = self.table.rows[index], self.table.columns.image
        return [image(row) for row in rows.tolist()] if isinstance(index, slice) else image(int(rows))


def folder_of(key: str) -> str:
    """The last folder in the name of an image."""
    return PurePosixPath(key).parent.name


def _hash_strings(digest: Any, strings: pa.LargeStringArray) -> None:
    """Lengths and bytes, wherever they begin in the buffers."""
    if not len(strings):
        return
    _, offsets, data = strings.buffers()
    ends = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    digest.update(np.diff(ends))
    digest.update(memoryview(data or b"")[ends[0] : ends[-1]])
