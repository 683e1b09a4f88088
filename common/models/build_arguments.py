"""Models built from the arguments in a file of unknown origin.

with building(path, build, weights):
    model = SomeModel(**build)                      any fault is one line that names the file

A file of a few kilobytes may ask for a layer of terabytes, or for a million layers. So a model may have little more
than the parameters that the file has weights for; torch reports each before its memory is touched.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from common.models.checkpoint_file import first_line

SLACK_VALUES, SLACK_TENSORS = 2**20, 1000  # of parameters beyond twice the file's: layers that a model replaces
MAX_DEPTH = 100  # of containers in containers
MAX_INTEGER = 2**36  # rope_theta of some language models is 10**10
LIMITS = {"image_size": 2048, "img_size": 2048, "input_size": 2048, "context_length": 8192}  # time is their square
MAX_LAYERS = 1000


@contextmanager
def building(path: object, build: Any, weights: Mapping[str, torch.Tensor] | None = None) -> Iterator[None]:
    """ValueError that begins with `path` for arguments from which the block builds nothing, or more than `weights`."""
    check_plain(build, path)
    in_file = sum(tensor.numel() for tensor in (weights or {}).values())
    values, tensors = 0, 0

    def count(module: torch.nn.Module, name: str, parameter: torch.Tensor | None) -> None:
        nonlocal values, tensors
        if weights is None or parameter is None:
            return
        values, tensors = values + parameter.numel(), tensors + 1
        if values > 2 * in_file + SLACK_VALUES or tensors > 2 * len(weights) + SLACK_TENSORS:
            raise ValueError(f"they ask for more than the {in_file:,} weights of the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except Exception as error:  # a constructor raises any kind for values that it does not expect
        if str(error).startswith(str(path)) or isinstance(error, OSError) and weights is None:  # of another file
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path}: its build arguments make no model ({kind}{first_line(error)})") from error
    finally:
        hook.remove()


def _limit(name: str) -> int:
    return MAX_LAYERS if "depth" in name or "layers" in name else LIMITS.get(name, MAX_INTEGER)


def check_plain(content: Any, path: object) -> None:
    """ValueError for values that need endless time or memory: NaN, huge numbers and sizes, deep nesting."""
    level, seen = [("", content)], set[int]()
    for _ in range(MAX_DEPTH):
        deeper: list[tuple[str, Any]] = []
        for name, value in level:
            if isinstance(value, (dict, list, tuple)):
                if id(value) not in seen:  # a pickle may hold one object at many places
                    seen.add(id(value))
                    items = value.items() if isinstance(value, dict) else ((name, item) for item in value)
                    deeper += [(str(key), item) for key, item in items]
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{path}: build arguments: {ascii(name)[:60]} is {value}")
            elif isinstance(value, int) and abs(value) > (most := _limit(name)):
                raise ValueError(f"{path}: build arguments: {ascii(name)[:60]} is beyond {most:,}")
        if not deeper:
            return
        level = deeper
    raise ValueError(f"{path}: build arguments: nested too deeply")
