"""Seeded random inputs for every reader of files and replies of unknown origin.

Each module of this package is one door and has  trial(random, folder) -> outcome: one random input, given to the
door, with files only below `folder`. "read" means that it came through and holds what was written; "skipped" that an
entry was skipped by name; "refused" that an error of one line named the file. Anything else is an AssertionError or
the door's own traceback. benchmarks/robustness.py counts many; tests/test_doors.py tries a few.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random

Trial = Callable[[Random, Path], str]


def door_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def open_door(name: str) -> Trial:
    return import_module(f"{__name__}.{name}").trial


def refused(error: Exception, path: Path | str) -> str:
    """The outcome of an error that names `path` in one line."""
    message = str(error)
    assert str(path) in message and "\n" not in message, f"not one line that names {path}: {message!r}"
    return "refused"


def mutated(random: Random, data: bytes) -> bytes:
    """A few bytes changed, removed or added, half of the time near the start; or the file cut short."""
    changed = bytearray(data)
    if random.random() < 0.1:
        return bytes(changed[: random.randrange(len(changed) + 1)])
    for _ in range(random.randint(1, 5)):
        place = random.randrange(max(1, min(len(changed), 200) if random.random() < 0.5 else len(changed)))
        match random.randrange(4):
            case 0:
                del changed[place : place + random.randint(1, 4)]
            case 1:
                changed[place:place] = random.randbytes(random.randint(1, 4))
            case 2 if changed:
                changed[place % len(changed)] ^= 1 << random.randrange(8)
            case _ if changed:
                changed[place % len(changed)] = random.randrange(256)
    return bytes(changed)
