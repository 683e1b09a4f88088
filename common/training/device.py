"""Device and numerical precision of a run, chosen once in main()."""

import ctypes
from contextlib import suppress
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

# The other processes wait while one decodes images or validates. By default PyTorch ends a run on GPUs after ten
# minutes of waiting; the launcher notices a process that dies without that limit.
WAITING = timedelta(hours=12)


def choose_device(name: str = "auto") -> torch.device:
    """'auto' -> a GPU where there is one, else the CPU; anything else must exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not available ({str(error).splitlines()[0]}); try cpu") from None
    return device


def make_accelerator(device: str, precision: str, find_unused_parameters: bool = False) -> Accelerator:
    """accelerate on one device or many; on a CPU freed memory is kept for reuse."""
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"--device {device}: expected auto, cpu or cuda; CUDA_VISIBLE_DEVICES selects the GPUs")
    chosen = choose_device(device)
    if chosen.type == "cpu":
        disable_malloc_trim()
    return Accelerator(
        mixed_precision=choose_precision(precision, chosen),
        cpu=chosen.type == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters),
            InitProcessGroupKwargs(timeout=WAITING),
        ],
    )


def choose_precision(name: str, device: torch.device) -> str:
    """-> accelerate's 'no', 'bf16' or 'fp16'. 'auto' is bf16 on a GPU that supports it, else fp32: on most CPUs bf16 is
    emulated and many times slower."""
    names = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "no"
    if name not in names:
        raise ValueError(f"PRECISION '{name}': expected auto, {', '.join(names)}")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("PRECISION fp16 needs a GPU; use fp32 on a CPU")
    return names[name]


def disable_malloc_trim() -> None:
    """On a CPU: reuse the memory of freed tensors instead of returning it to the kernel.

    glibc returns each large block when it is freed, and every step then pays for fresh, zeroed pages; keeping them
    made training steps a fifth faster for a twelfth more peak memory (benchmarks/RESULTS.md). Does nothing elsewhere.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no separate mapping per block, which each free would return
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never return the end of the heap
