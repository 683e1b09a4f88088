"""Check that files which go to the Hub unchanged hold no secrets besides their weights and words.

.safetensors        the header: names of tensors, and the texts that somebody saved with them
.onnx, tokenizers   all bytes; tokens alone in vocabularies, whose words may look like paths
.jinja, README.md   line by line
"""

import mmap
from pathlib import Path

from safetensors import SafetensorError, safe_open

from common.models.scrub import HOME_BYTES, TOKEN_BYTES, hide_secrets
from common.text.files import read_lines

MAX_VOCABULARY = 500_000_000  # bytes


def refuse_private(path: Path) -> None:
    """ValueError for a file that holds a password, a token or a path of a home, or is not what its name says."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                header = [*(file.metadata() or {}).items(), *((name, "") for name in file.keys())]  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
        for item in header:
            _refuse(path, " ".join(item).encode(), f"{item[0]!r} of its header")
    elif path.suffix in (".jinja", ".md"):
        for number, line in enumerate(read_lines(path), 1):
            _refuse(path, line.encode(), f"line {number}", hide_secrets(line) != line)
    elif size := path.stat().st_size:
        if path.suffix != ".onnx" and size > MAX_VOCABULARY:
            raise ValueError(f"{path}: {size:,} bytes are no vocabulary")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = TOKEN_BYTES.search(content) or (path.suffix == ".onnx" and HOME_BYTES.search(content))
            start = found.start() if found else 0
            _refuse(path, found[0] if found else b"", f"byte {start}")


def _refuse(path: Path, content: bytes, place: str, is_secret: bool = False) -> None:
    if is_secret or TOKEN_BYTES.search(content):
        raise ValueError(f"{path}: {place} holds a password or a token; take it out")
    if HOME_BYTES.search(content):
        raise ValueError(f"{path}: {place} names a folder of this machine; take it out")
