"""Samples inside tar shards of the webdataset kind, read in place: nothing is ever unpacked.

shard.tar: 000123.jpg, 000123.txt, 000123.json  ->  {'000123': {'jpg': TarMember, 'txt': TarMember, ...}}

Plain tar files have their members at fixed places, so an index of offsets makes any sample readable in any order, which
streaming from front to back does not: true shuffling, and a resumed run that knows where it stands.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TarMember:
    """A file inside an uncompressed tar; stands wherever the path of an image may stand."""

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
            raise ValueError(f"{self}: the shard ends before the file does; it was not copied whole")
        return content


def read_shard(shard: Path) -> dict[str, dict[str, TarMember]]:
    """Members of one shard by sample: the name up to the first dot of its last part, as webdataset has it."""
    samples: dict[str, dict[str, TarMember]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile() and not Path(member.name).name.startswith("."):
                    folder, _, last = member.name.rpartition("/")
                    key, _, suffix = last.partition(".")
                    found = TarMember(shard, member.name, member.offset_data, member.size)
                    samples.setdefault(f"{folder}/{key}" if folder else key, {})[suffix.lower()] = found
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard}: cannot be read as an uncompressed tar ({error})") from None
    return samples
