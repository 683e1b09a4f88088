"""What a run trains: kept in its folder and in every state, and compared before a resumed run writes anything.

trained_on.json: model, batch size, template, digests of weights and data, ... -> check_resume

A state is weights, optimizer and position in the data. With another model, other data or another batch size it would
load, or fail late, and mean something else. Epochs, rates, workers, logging and the number of devices may change.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from common.images.webdataset import TarMember
from common.text.schema import read_checked

TRAINED_ON = "trained_on.json"
SCALER = "scaler.pt"  # accelerate's, of a run in fp16
DIFFERENCES_SHOWN = 4
OTHERS = (".partial", ".older")  # states of the same run, one of which replaces a damaged last/


def check_resume(trained_on: Mapping[str, Any], state: Path, flag: str, fp16: bool = False) -> None:
    """ValueError if a run that trains `trained_on` cannot continue a state. Reads one small file.

    state: last/, for which last.partial or last.older of the same run may stand in, or checkpoint-N/. flag: that
    resumes. fp16: whether a gradient scaler must be restored. Names that only one of the two knows are not compared:
    they are of another version.
    """
    existing = [path for path in (state, *(state.with_name(state.name + ending) for ending in OTHERS)) if path.is_dir()]
    if not existing:
        raise FileNotFoundError(f"{state}: no state to resume from; start without {flag}")
    if fp16 and not any((path / SCALER).is_file() for path in existing):
        raise ValueError(f"{existing[0]}: trained without fp16, it holds no gradient scaler; resume in fp32 or bf16")
    earlier = next(filter(None, map(_read, existing)), None)
    if earlier is None:
        print(f"{existing[0]}: holds no {TRAINED_ON} to compare with; resumed as it is", file=sys.stderr)
        return
    now = json.loads(json.dumps(trained_on))  # lists in place of tuples
    differences = [
        f"{name} was {json.dumps(earlier[name], ensure_ascii=False)}, now {json.dumps(value, ensure_ascii=False)}"
        for name, value in now.items()
        if name in earlier and earlier[name] != value
    ]
    if differences:
        shown, more = "; ".join(differences[:DIFFERENCES_SHOWN]), len(differences) - DIFFERENCES_SHOWN
        raise ValueError(
            f"{existing[0]}: is of a run that differs: {shown}{f'; and {more} more' if more > 0 else ''}; "
            f"repeat the earlier values, or start a new run without {flag}"
        )


def describe_samples(rows: Iterable[Any]) -> str:
    """Number and digest of samples in their order. rows: a value for each, with a repr that shows all of it."""
    digest, count = hashlib.blake2b(digest_size=6), 0
    for row in rows:
        digest.update(f"{row!r}\n".encode("utf-8", "surrogateescape"))
        count += 1
    return f"{count} samples, digest {digest.hexdigest()}"


def file_size(path: Path | TarMember) -> int:
    """Bytes of an image file: with its name a cheap sign that it is the same."""
    return path.size if isinstance(path, TarMember) else path.stat().st_size


def describe_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Number of values and digest of the names and shapes: the architecture, without its weights."""
    shapes = sorted((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    return f"{sum(tensor.numel() for tensor in tensors.values()):,} weights, digest {digest_of(shapes)}"


def digest_of(value: Any) -> str:
    """12 hex digits of what is too long to store and to show, such as a chat template."""
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def source_name(source: Any) -> Any:
    """A model as it is named; of a local path the last part, since folders may move."""
    return Path(source).name if isinstance(source, str) and Path(source).exists() else source


def _read(state: Path) -> dict[str, Any] | None:
    """None: an older version wrote the state, or it is damaged."""
    try:
        return read_checked(state / TRAINED_ON, dict[str, Any])
    except (OSError, ValueError):
        return None
