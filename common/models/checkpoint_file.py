"""Model checkpoints: one file that rebuilds its model without any other.

model -> {kind, build, preprocessing, model_state_dict, settings, step, metrics, ...} -> file.pth

Plain types and tensors only, so it loads with weights_only=True: opening a checkpoint runs no code from it.
"""

import hashlib
import pickle
import struct
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required

import torch
from pydantic import InstanceOf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from typing_extensions import TypedDict

from common.cli.failures import explain_failure
from common.cli.hub_failures import explain_hub
from common.text.files import refuse_lfs_pointer, write_atomically
from common.text.schema import check_type

FORMAT = 1
MAX_EXPANSION = 16  # bytes of memory per byte of a file, for tensors that share storage
MAX_COMPRESSION = 100
SMALL = 2**26  # bytes that any file may take


class Preprocessing(TypedDict, total=False):
    image_size: int  # pixels
    interpolation: str


class Checkpoint(TypedDict, total=False):
    """Content of a file of save_model."""

    format: Required[int]
    kind: Required[str]
    build: Required[dict[str, Any]]
    model_state_dict: Required[dict[str, InstanceOf[torch.Tensor]]]
    preprocessing: Preprocessing
    settings: dict[str, Any]
    epoch: int
    step: int
    metrics: dict[str, Any]
    fingerprint: str


def model_content(model: torch.nn.Module, kind: str, build: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Weights and everything needed to use them. `build`: the arguments of the model's class."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return {"format": FORMAT, "kind": kind, "build": build, **metadata, "model_state_dict": weights}


def save_model(path: str | Path, model: torch.nn.Module, kind: str, build: dict[str, Any], **metadata: Any) -> None:
    """Write a file of model_content."""
    content = model_content(model, kind, build, **metadata)
    with write_atomically(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer turns a full disk into 'unexpected pos'
            if explain_failure(error):
                raise
            file.flush()
            raise OSError(28, f"the disk may be full: {error}", str(path)) from error


def read_model_file(path: str | Path) -> dict[str, Any]:
    """Read a file of save_model, of any kind."""
    content = read_tensors(path)
    if not isinstance(content, dict) or "model_state_dict" not in content or "kind" not in content:
        raise ValueError(f"{path}: holds no checkpoint of this project; expected one that train.py wrote")
    check_finite(check_type(content, Checkpoint, path)["model_state_dict"], path)
    return content


def check_finite(weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """ValueError names the first tensor with NaN or infinite values; masks may hold -inf."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta or "mask" in name:
            continue
        values = tensor.detach() if tensor.element_size() > 1 else tensor.detach().float()  # 8 bits have no aminmax
        if not torch.stack(values.aminmax()).isfinite().all():  # one pass, in which a NaN stays
            raise ValueError(f"{path}: {name} holds NaN or infinite values; weights of a run that diverged, or damaged")


def load_every_tensor(module: torch.nn.Module, weights: dict[str, torch.Tensor], path: str | Path, what: str) -> None:
    """load_state_dict that loads nothing unless names and shapes match exactly."""
    check_tensors(weights, module.state_dict(), path, what)
    module.load_state_dict(weights)


def check_tensors(
    weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: str | Path, what: str
) -> None:
    """ValueError unless names and shapes match exactly; it names the file and `what` it should hold the weights of."""
    shapes, wanted = ({name: tuple(value.shape) for name, value in tensors.items()} for tensors in (weights, expected))
    problems = [
        *(f"{name} is missing" for name in wanted if name not in shapes),
        *(f"{name} is unknown" for name in shapes if name not in wanted),
        *(f"{name} is {shapes[name]}, not {size}" for name, size in wanted.items() if shapes.get(name, size) != size),
    ]
    if problems:
        raise ValueError(f"{path}: not weights of {what}; {len(problems)} tensors differ: {', '.join(problems[:3])}")


def weights_digest(weights: Mapping[str, torch.Tensor], sampled: bool = False) -> str:
    """24 hex digits that identify weights by name, shape and values.

    Every bit counts. sampled: up to 1,024 evenly spaced values of each tensor, rounded to bf16, which is quick for
    large models and gives the same digits in whichever floating-point format they were loaded.
    """
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().flatten()
        if sampled:
            values = values[:: max(1, len(values) // 1024)][:1024]
            values = values.bfloat16() if values.is_floating_point() else values
        digest.update(f"{name} {values.dtype} {tuple(tensor.shape)}".encode())
        digest.update(values.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: str | Path) -> Any:
    """A .safetensors file, or one of torch.save, which never runs code from the file; errors name it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    refuse_lfs_pointer(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
    refuse_zip_bomb(path)
    content = _unpickle(path)
    _refuse_views(content, path)
    return content


def refuse_zip_bomb(path: Path) -> None:
    """ValueError for a zip archive, as torch and numpy write them, that unpacks to many times its size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"{path}: a broken archive ({first_line(error)})") from None
    if unpacked > MAX_COMPRESSION * path.stat().st_size + SMALL:
        raise ValueError(f"{path}: unpacks to {unpacked:,} bytes, which is far more than vectors or weights do")


def _refuse_views(content: Any, path: Path) -> None:
    """ValueError for tensors that repeat a few stored values to many times the size of the file."""
    level, seen, size = [content], set[int](), 0
    while level:
        value = level.pop()
        if isinstance(value, torch.Tensor):
            size += value.numel() * value.element_size()
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            level += value.values() if isinstance(value, dict) else value
    if size > MAX_EXPANSION * path.stat().st_size + SMALL:
        raise ValueError(f"{path}: its tensors take {size:,} bytes, many times the size of the file")


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([Namespace]):  # the flags of the run, in files of many trainers
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" not in str(error):  # a valid pickle that calls a class or function
            raise ValueError(
                f"{path}: refused, it holds Python objects besides tensors, and loading those could run code; "
                "save plain tensors with torch.save(tensor, path)"
            ) from None
        # torch's own message recommends loading without the check.
        raise ValueError(f"{path}: cannot be read as a PyTorch file; it is broken, or of another kind") from None
    except Exception as error:  # broken bytes make the unpickler raise any kind
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path}: is a TorchScript archive; expected plain tensors (OpenAI's CLIP: ViT-B/32:{path})"
            ) from None
        raise ValueError(f"{path}: cannot be read as a PyTorch file ({first_line(error)})") from None


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """A .safetensors file, or one of torch.save."""
    # safetensors refuses tied weights, which are one tensor under two names: each name gets its own copy.
    copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with write_atomically(path) as file:
        if Path(path).suffix == ".safetensors":
            save_file(copies, file.name, metadata={"format": "pt"})
        else:
            torch.save(copies, file)


def first_line(error: Exception) -> str:
    if "trust_remote_code" in str(error):  # transformers would have it set to True
        return "it needs code of its own, which is never run; take its version for transformers, often named NAME-hf"
    return explain_hub(error) or (str(error).strip() or type(error).__name__).splitlines()[0]
