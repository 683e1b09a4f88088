"""Images and texts in Parquet tables, as Hugging Face's image data sets have them.

train-00000-of-00002.parquet: image {bytes, path}, text  ->  [{"image": TableImage, "text": "..."}, ...]

The library datasets reads them: it copies a table once into its cache, as Arrow files that are mapped into memory, so
that images can be read in any order. Parquet itself would have to be unpacked around every one of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.images.webdataset import TarMember
from common.text.files import check_file

BLOCK = 4096  # rows that are Python objects at any time


@dataclass(frozen=True)
class TableImage(TarMember):
    """An image in a table, accepted wherever one in a tar is: `offset` is its row from 0, `name` its column."""

    def __str__(self) -> str:
        return f"{self.shard} row {self.offset + 1}"

    def read(self) -> bytes:
        return _open_table(self.shard)[self.name][self.offset].as_py()


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a table: an image is a TableImage if the table holds its bytes, else its path."""
    from pyarrow.compute import binary_length  # with all that reads tables

    check_file(path)
    table = _open_table(path)
    binary = [field.name for field in table.schema if str(field.type) in ("binary", "large_binary")]
    empty = [field.name for field in table.schema if str(field.type) == "null" and field.name.endswith(".bytes")]
    images = {name.removesuffix(".bytes"): name for name in (*binary, *empty)}
    others = [name for name in table.column_names if name not in images and name.rpartition(".")[0] not in images]
    for start in range(0, len(table), BLOCK):
        block = table.slice(start, BLOCK)
        sizes = {
            image: binary_length(block[column]).to_pylist() for image, column in images.items() if column in binary
        }
        columns = {name: block[name].to_pylist() for name in others}
        paths = {image: block[f"{image}.path"].to_pylist() for image in images if f"{image}.path" in block.column_names}
        for number in range(len(block)):
            row = {name: values[number] for name, values in columns.items()}
            for image, column in images.items():
                if size := sizes[image][number] if image in sizes else 0:
                    row[image] = TableImage(path, column, start + number, size)
                elif image in paths:
                    row[image] = paths[image][number]
            yield row


@cache  # one map in each process
def _open_table(path: Path) -> Any:
    """-> pyarrow.Table; {bytes, path} of a column are columns of their own: image.bytes, image.path."""
    from datasets import Dataset, disable_progress_bars, logging  # slow to import, and of no use to other formats
    from pyarrow import parquet

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # errors are raised, too
    try:
        if not parquet.read_metadata(path).num_rows:  # which datasets fails on
            return parquet.read_table(path)
        return Dataset.from_parquet(str(path)).data.table.flatten()
    except Exception as error:  # pyarrow's and datasets' own, of any class
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"{path}: cannot be read as Parquet ({reason})") from error
