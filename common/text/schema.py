"""Types of JSON files and of other plain values of any origin, checked by pydantic.

read_checked("config.json", Config)   ->   the content, or  config.json: training.batch_size: expected ..., got 'x'

Checks are strict: "false" is no boolean, true and 2.5 are no whole numbers. A TypedDict lists the names that are read;
others may be there. What comes back is the content itself, unconverted; of a dataclass, an instance.
"""

from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from common.text.files import check_file, read_json

Value = TypeVar("Value")
MAX_BYTES = 200_000_000  # of one file: parsed, it takes some ten times that
SHOWN = 60  # characters of a wrong value
QUOTES = "\"'"


def read_checked(path: str | Path, type: type[Value], hint: str = "") -> Value:
    """JSON of a file. type: a TypedDict, or of list, dict, str, int, FiniteFloat, Literal. hint: as in check_file.

    ValueError names file and place.
    """
    check_file(path, hint)
    if (size := Path(path).stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size:,} bytes, but JSON of this kind has at most {MAX_BYTES:,}")
    return check_type(read_json(path, hint), type, path)


def check_type(value: Any, type: type[Value], label: object) -> Value:
    """`value`, if it is of `type`; ValueError of one line: `label`, the place in the value, what stands there."""
    try:
        _adapter(type).validate_python(value, strict=True)  # type: ignore[arg-type] # types are hashable
        return type(**value) if is_dataclass(type) else value
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    place = f" {'.'.join(ascii(part).strip(QUOTES)[:SHOWN] for part in first['loc'])}:" if first["loc"] else ""
    if first["type"] == "missing":
        raise ValueError(f"{label}:{place.removesuffix(':')} is missing")
    expected = first["msg"].replace("Input should be", "expected")
    raise ValueError(f"{label}:{place} {expected}, got {_shown(first['input'])}")


def _shown(value: Any) -> str:
    """The start of a value's repr."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**SHOWN:  # of thousands of digits, it has no repr
        return "a huge number"
    return ascii(value)[:SHOWN]


@cache
def _adapter(type: Any) -> TypeAdapter:
    if is_dataclass(type):  # strictly, pydantic takes instances alone
        fields: Any = TypedDict(type.__name__, get_type_hints(type), total=False)  # type: ignore[misc]
        type = with_config(ConfigDict(extra="forbid"))(fields)
    return TypeAdapter(type)
