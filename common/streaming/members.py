"""Files of a streamed sample, accepted wherever a file in a local tar is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.images.webdataset import TarMember


@dataclass(frozen=True)
class StreamedMember(TarMember):
    """A file in memory, which knows its shard and name."""

    url: str = ""
    content: bytes = b""

    def __str__(self) -> str:
        return f"{self.url}/{self.name}"

    def read(self) -> bytes:
        return self.content


def members_of(sample: dict[str, Any]) -> dict[str, TarMember]:
    """A sample of shard_reader.py -> {suffix: its file}."""
    url, key = sample["__url__"], sample["__key__"]
    return {
        suffix: StreamedMember(Path(), f"{key}.{suffix}", 0, len(content), url, content)
        for suffix, content in sample.items()
        if isinstance(content, bytes)
    }
