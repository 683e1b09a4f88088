"""Paths that a user types, in the folder of a script or at the repository's root."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the repository


def find_from_root(path: str) -> str:
    """A path that exists at the repository's root but not here, from there; any other as it is."""
    return str(ROOT / path) if path and not Path(path).exists() and (ROOT / path).exists() else path


def find_inputs(settings: object, *names: str) -> None:
    """find_from_root for the attributes `names` of the settings."""
    for name in names:
        setattr(settings, name, find_from_root(getattr(settings, name)))
