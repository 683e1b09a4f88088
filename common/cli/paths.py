"""Paths that a user types."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the repository


def find_from_root(path: str) -> str:
    """A path that exists at the repository's root but not here, from there; any other as it is. Scripts are started in
    their own folder, too: `cd llava && python inference.py`."""
    return str(ROOT / path) if path and not Path(path).exists() and (ROOT / path).exists() else path
