"""What a vector store writes down of itself and of each image file."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

OUTSIDE = re.compile(r"^/|(^|/)\.\.(/|$)|\0")  # of a folder, by the text of a name


class Stamp(NamedTuple):
    """State of a file when it was encoded."""

    name: str  # relative to the image folder, with /
    size: int  # bytes
    changed: int  # nanoseconds

    @classmethod
    def of(cls, path: Path, folder: Path) -> "Stamp":
        status = path.stat()
        return cls(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)

    def check(self, store: Path) -> None:
        """ValueError for a name that leads out of the image folder, which no store of ours holds."""
        if OUTSIDE.search(self.name):
            raise ValueError(f"{store}: names {ascii(self.name)}, a file outside its image folder")


class StoreMetadata(TypedDict):
    """metadata.json: where the images are, how their vectors are made and kept."""

    image_dir: str
    weights: str
    key: str
    pooling: Literal["native", "cls", "mean", "gem", "cls+mean"]
    layer: int
    flip: bool
    tiles: Annotated[int, Field(ge=1, le=1000)]
    image_size: Annotated[int, Field(ge=1, le=4096)]
    kind: str
    dtype: Literal["float16", "float32"]
    trained_on: int  # rows
    index_checksum: NotRequired[int]  # of index.faiss
