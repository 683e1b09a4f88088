"""Networks as ONNX files, which run without PyTorch, each compared with PyTorch before it is written.

module (B, ...) -> graph with a free batch size -> onnxruntime, compared with torch for several batches -> file.onnx
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim

from common.text.files import write_atomically

REQUIREMENTS = "requirements-export.txt"
TOLERANCE = 1e-4  # largest allowed difference from torch, as a share of an output's largest value
BATCHES = (1, 2, 5)  # images or texts
LIMIT = 2**31  # bytes that one ONNX file can hold
DECODING = "decode upright (EXIF orientation applied), 8-bit RGB, transparency on white"


class OutputTuple(nn.Module):
    """A network whose forward is `function`, one of its methods, with the outputs as a tuple."""

    def __init__(self, network: nn.Module, function: Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.function(value)
        return output if isinstance(output, tuple) else (output,)


def random_images(size: int) -> Callable[[int], torch.Tensor]:
    """-> make_input of write_onnx: batch -> (batch, 3, size, size) uint8, the same each time."""

    def images(batch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(batch)
        return torch.randint(256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)

    return images


def image_preprocessing(size: int, resize: list[str], mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """How a file becomes the input `image` of a graph, for preprocessing.json. resize: the steps after decoding."""
    return {
        "name": "image",
        "shape": ["batch", 3, size, size],
        "type": "uint8",
        "channels": "RGB",
        "resize": [DECODING, *resize],
        "size": size,
        "interpolation": "bicubic",
        "normalised_inside": True,
        "mean": list(mean),
        "std": list(std),
    }


def write_onnx(
    path: Path, module: nn.Module, make_input: Callable[[int], torch.Tensor], input_name: str, output_names: list[str]
) -> dict[str, float]:
    """Write `module` (one input, a tuple of outputs) and return the differences from PyTorch, see `compare_outputs`.
    Above TOLERANCE, a ValueError, and no file.

    make_input(batch) -> an input of that many rows.
    """
    graph = export_onnx(module, make_input, input_name, output_names)
    differences = compare_outputs(graph, module, make_input, input_name, output_names)
    if excessive := {name: value for name, value in differences.items() if not value <= TOLERANCE}:
        raise ValueError(f"{path}: not written, it would differ from PyTorch by {excessive} (at most {TOLERANCE})")
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        file.write(graph)
    return differences


def missing_packages() -> list[str]:
    return [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]


def export_onnx(
    module: nn.Module, make_input: Callable[[int], torch.Tensor], input_name: str, output_names: list[str]
) -> bytes:
    """The content of an ONNX file, with a free batch size; arguments as of `write_onnx`."""
    if missing := missing_packages():
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install -r {REQUIREMENTS}")
    module = module.eval()
    if sum(weight.nbytes for weight in module.state_dict().values()) >= LIMIT:
        raise ValueError("an ONNX file holds 2 GiB at most, and these weights are larger")
    shapes = ({0: Dim("batch")},)
    # torch.onnx.export, given a module, silently falls back to a fixed batch size; torch.export raises instead.
    with torch.no_grad():
        program = torch.onnx.export(
            torch.export.export(module, (make_input(2),), dynamic_shapes=shapes),
            (),
            dynamo=True,
            input_names=[input_name],
            output_names=output_names,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None  # only a call that names a file returns none
    graph = program.model.graph
    for part in (program.model, graph, *graph, *graph.initializers.values()):  # holds paths of this machine
        part.metadata_props.clear()
    return program.model_proto.SerializeToString()


def describe_differences(differences: dict[str, float]) -> str:
    return f"largest difference from PyTorch, as a share of the largest value (at most {TOLERANCE}): " + ", ".join(
        f"{name} {value:.1e}" for name, value in differences.items()
    )


@torch.no_grad()
def compare_outputs(
    onnx: bytes | str, module: nn.Module, make_input: Callable[[int], torch.Tensor], input_name: str, names: list[str]
) -> dict[str, float]:
    """-> for each output, the largest |onnxruntime - torch| over BATCHES, divided by the largest |torch|."""
    session = open_session(onnx)
    largest = dict.fromkeys(names, 0.0)
    for batch in BATCHES:
        value = make_input(batch)
        for name, output, tensor in zip(names, session.run(names, {input_name: value.numpy()}), module(value)):
            expected = tensor.double().numpy()
            largest[name] = max(largest[name], float(np.abs(output - expected).max() / np.abs(expected).max()))
    return largest


def open_session(onnx: bytes | str, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; threads 0: as many as there are cores."""
    import onnxruntime  # optional, and slow to import

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
