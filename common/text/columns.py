"""Columns of many texts in Arrow: some bytes each in place of a Python object.

pyarrow.array and to_numpy import pandas where it is installed, which takes a third of a second; from_buffers does not.
"""

from array import array

import numpy as np
import pyarrow as pa


class TextColumn:
    """Collects texts, or names of files of any bytes."""

    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def append(self, text: str) -> None:
        self.data += text.encode(errors="surrogateescape")
        self.ends.append(len(self.data))

    def to_arrow(self, binary: bool = False) -> pa.Array:
        """-> LargeStringArray; binary: LargeBinaryArray, for what may not be UTF-8."""
        kind = pa.large_binary() if binary else pa.large_string()
        return pa.Array.from_buffers(kind, len(self), [None, pa.py_buffer(self.ends), pa.py_buffer(self.data)])


def arrow_numbers(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def dictionary_codes(values: pa.DictionaryArray) -> np.ndarray:
    """Number of each value in the dictionary, without nulls; int32."""
    indices = values.indices
    return np.frombuffer(indices.buffers()[1], np.int32, len(indices), 4 * indices.offset)
