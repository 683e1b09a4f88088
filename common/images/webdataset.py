"""Samples in webdataset tar shards, read in place without unpacking.

shard.tar: 000123.jpg, 000123.txt, 000123.json  ->  {'000123': {'jpg': TarMember, 'txt': TarMember, ...}}

Members of an uncompressed tar have fixed offsets, so samples can be read in any order. Unlike streaming, this allows
full shuffling and exact resuming.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TarMember:
    """A file inside an uncompressed tar; accepted wherever the path of an image is."""

    shard: Path
    name: str
    offset: int  # bytes from the start of the shard
    size: int  # bytes

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise ValueError(f"{self}: the shard ends before the file does; its copy is incomplete")
        return content


def is_complete(shard: Path) -> bool:
    """Whether a tar has its end mark, a block of zeros; one that was cut between two members reads without an error."""
    with shard.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, 2)
        return not any(file.read())


def read_shard(shard: Path) -> dict[str, dict[str, TarMember]]:
    """Members of one shard by sample, whose key is the name up to the first dot of its last part, as in webdataset."""
    samples: dict[str, dict[str, TarMember]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile() and not Path(member.name).name.startswith("."):
                    folder, _, last = member.name.rpartition("/")
                    key, _, suffix = last.partition(".")
                    sample = samples.setdefault(f"{folder}/{key}" if folder else key, {})
                    sample[suffix.lower()] = TarMember(shard, member.name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard}: cannot be read as an uncompressed tar ({error})") from None
    return samples
