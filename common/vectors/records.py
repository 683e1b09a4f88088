"""Records of a vector store: its metadata, the state of each image file, and the places of stores."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NotRequired, Self

from pydantic import Field
from typing_extensions import TypedDict

MILVUS_PLACE = re.compile(r"(?P<uri>https?://[^#]+|[^#]+\.db)(#(?P<collection>.*))?", re.DOTALL)
OUTSIDE = re.compile(r"^/|(^|/)\.\.(/|$)|\0")  # of a folder, by the text of a name

LATEST = 2**63 - 1  # nanoseconds since 1970, as databases count: in the year 2262


class Stamp(NamedTuple):
    """State of a file when it was encoded."""

    name: str  # relative to the image folder, with /
    size: int  # bytes
    changed: int  # nanoseconds

    @classmethod
    def of(cls, path: Path, folder: Path) -> "Stamp":
        status = path.stat()
        return cls(path.relative_to(folder).as_posix(), status.st_size, min(status.st_mtime_ns, LATEST))

    @property
    def label(self) -> str:
        """The name of the file's folder; '' in the image folder itself."""
        return self.name.split("/")[-2] if "/" in self.name else ""

    def check(self, store: object) -> Self:
        """ValueError for a name that leads out of the image folder, which no store of ours holds."""
        if OUTSIDE.search(self.name):
            raise ValueError(f"{store}: names {ascii(self.name)}, a file outside its image folder")
        return self


class StoreMetadata(TypedDict):
    """Where the images of a store are, how their vectors are made and kept."""

    image_dir: str
    weights: str
    key: str
    pooling: Literal["native", "cls", "mean", "gem", "cls+mean"]
    layer: int
    flip: bool
    tiles: Annotated[int, Field(ge=1, le=1000)]
    image_size: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=65_536)]  # D
    kind: str
    dtype: Literal["float16", "float32"]
    trained_on: int  # rows
    index_checksum: NotRequired[int]  # of index.faiss


def is_milvus(place: str) -> bool:
    """Whether a place is one of Milvus, not a folder."""
    return bool(MILVUS_PLACE.fullmatch(place))


def shown_place(place: str) -> str:
    """A place without a password."""
    return re.sub(r"//[^/@]*@", "//", place)
