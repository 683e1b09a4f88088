"""Values of records of any origin where a text is expected."""

import os
from pathlib import Path
from typing import Any

KINDS = {bool: "true or false", int: "a number", float: "a number", type(None): "nothing", dict: "an object"}


def text_of(value: Any, field: str = "") -> str:
    """The text itself; ValueError for any other value, and for text that no file in UTF-8 can hold.

    field: its name, for the error.
    """
    label = f"{field}: " if field else ""
    if not isinstance(value, str):
        kind = KINDS.get(type(value), "a list" if isinstance(value, list | tuple) else type(value).__name__)
        raise ValueError(f"{label}expected text, got {kind} ({repr(value)[:40]})")
    if "\0" in value:
        raise ValueError(f"{label}text with a NUL character")
    try:
        if not value.isascii():  # which is faster
            value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{label}text with half a character (a lone surrogate at position {error.start})") from None
    return value


def file_name_of(value: Any, folder: Path, field: str = "") -> str:
    """The name of a file below `folder` as a list or table gives it, with / for the \\ of Windows. field: as above."""
    name = text_of(value, field)
    if "\\" not in name or os.path.exists(folder / name):  # noqa: PTH110, Path.exists() raises where a name is too long
        return name
    return name.replace("\\", "/")
