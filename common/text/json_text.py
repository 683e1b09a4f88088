"""Parsing of JSON of any origin: every fault is a ValueError of one line."""

import json
from typing import Any


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
