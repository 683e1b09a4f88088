"""Parsing of JSON of any origin: every fault is a ValueError of one line."""

import json
from pathlib import Path
from typing import Any


def read_json(path: str | Path, hint: str = "") -> Any:
    """A file of JSON. hint: the flag or the expected folder, for the error of a missing file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file" + (f" ({hint})" if hint else ""))
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """json.loads; bytes are UTF-8."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error})") from None
    except RecursionError:
        raise ValueError("not JSON (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
