"""Types of settings and flags in words, for help and for errors."""

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = {str: "TEXT", Path: "PATH", bool: "true|false", int: "INT", float: "NUMBER"}


def describe_type(hint: Any) -> str:
    """bool | str -> true|false|TEXT, Literal["a", "b"] -> a|b, list[int] -> INT ..., PositiveInt -> INT>0."""
    if hint in WORDS:
        return WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return "|".join(describe_type(argument) for argument in arguments if argument is not type(None))
    if origin in (list, Sequence):
        return f"{describe_type(arguments[0])} ..."
    if limits := getattr(hint, "_expression", ""):  # a number with limits, of jsonargparse
        return WORDS[hint._type] + ",".join(limit.removeprefix("v") for limit in limits.split(" and "))
    return getattr(hint, "__name__", str(hint))


def is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def shown(value: object) -> str:
    """A default as it is typed: true, a b, 0.1; nothing for None and what is empty."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
