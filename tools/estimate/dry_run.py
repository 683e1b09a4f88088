"""Memory and operations of a training step, counted on fake tensors.

TrainingStep -> every operation of forward, backward and optimizer on tensors with shapes and no values
             -> bytes alive after each of them, by kind; multiplications and additions

Autograd, checkpointing, autocast and the optimizer are PyTorch's own, so what they keep and when they free it is not
modelled. Small tensors computed from integers alone (token ids, masks, labels) do have values, because these decide
shapes: the number of tokens with a label, for instance. A mask with unknown values counts as all true.

Only tensors that operations return are counted: neither the workspaces of kernels (oneDNN, cuDNN), nor an allocator's
rounding and fragmentation, nor caches of libraries. torch.distributed._tools.MemTracker counts the same tensors, but
has no answer to shapes that depend on values, and fails on networks with frozen parts (docs/scaling.md).
"""

import math
import weakref
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._library.utils import mutates_and_returns_first_arg
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from tools.estimate.training_step import TrainingStep, take_step, trainable_parameters

aten = torch.ops.aten
MAX_REAL_ELEMENTS = 2**20  # of a tensor computed from integers
INDEXING = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten._unsafe_index_put.default,
)
FILLING = (  # one number everywhere, whatever the values of the argument
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
TRUTH = (aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default)
OPERATIONS = {  # torch's registry lacks the attention of CPUs
    **flop_registry,
    # Either gradient costs as much as the forward pass; torch's own formula takes grouped weights for full ones.
    aten.convolution_backward: lambda gradient, image, weight, *rest, **__: (
        sum(rest[-1][:2]) * conv_flop_count(image.shape, weight.shape, gradient.shape, rest[4])
    ),
    aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query.shape, key.shape, value.shape
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, query, key, value, *_, **__: (
        sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)
    ),
}


@dataclass(frozen=True)
class StepMemory:
    """Bytes, unless stated otherwise."""

    trainable: int  # weights
    frozen: int  # weights
    buffers: int
    gradients: int
    optimizer_state: int
    moving_average: int
    batch: int
    activations: int  # and intermediate results: the maximum alive at one time
    peak: int  # of everything
    phase: str  # in which the peak is reached
    at_peak: dict[str, int]  # kind -> bytes alive then
    trainable_count: int  # numbers
    frozen_count: int
    operations: int  # of matrix products, convolutions and attention, in a whole optimizer step


class DryRun(TorchDispatchMode):
    """Inside it, operations on fake tensors give fake tensors, and all tensors are counted while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.kinds: dict[int, tuple[str, int]] = {}  # storage -> kind, bytes
        self.references: dict[int, weakref.ref] = {}
        self.alive: Counter[str] = Counter()
        self.operations = 0
        self.phase = ""
        self.max_activations = 0  # bytes
        self.peaks: dict[str, tuple[int, dict[str, int]]] = {}  # phase -> bytes of everything, by kind

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        """A fake tensor of the same shape, nominally on the CPU."""
        with self.fake:
            fake = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")
        return nn.Parameter(fake, like.requires_grad) if isinstance(like, nn.Parameter) else fake

    def register(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor, or from now on as another kind. Views and shared weights count once."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.kinds:
            known, counted = self.kinds[key]
            self.alive[known] -= counted
        else:
            self.references[key] = weakref.ref(storage, lambda _: self._freed(key))
        self.kinds[key] = kind, size
        self.alive[kind] += size

    def _freed(self, key: int) -> None:
        kind, size = self.kinds.pop(key)
        del self.references[key]
        self.alive[kind] -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        small = all(tensor.numel() <= MAX_REAL_ELEMENTS for tensor in tensors)
        if small and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            result = func(*args, **kwargs)
        elif small and self._fills(func, args):
            # One element of memory stands for the argument, whose shape alone matters.
            shaped = torch.empty(1, dtype=args[0].dtype).as_strided(args[0].shape, [0] * args[0].ndim)
            result = func(shaped, *args[1:], **kwargs)
        else:
            result = self._run_fake(func, args, kwargs)
            if mutates_and_returns_first_arg(func) and not isinstance(args[0], FakeTensor):
                result = args[0]
        if formula := OPERATIONS.get(func._overloadpacket):
            self.operations += formula(*args, **kwargs, out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.kinds:
                self.register(leaf, "activations")
        if self.phase != "optimizer":
            self.max_activations = max(self.max_activations, self.alive["activations"])
        if (total := sum(self.alive.values())) > self.peaks.get(self.phase, (0,))[0]:
            self.peaks[self.phase] = total, dict(self.alive)
        return result

    def _fills(self, func: Any, args: tuple) -> bool:
        """Whether the result is small and known. The optimizer's state is not: it is large."""
        if func not in FILLING or self.phase == "optimizer":
            return False
        return len(args) < 2 or not isinstance(args[1], list | tuple) or math.prod(args[1]) <= MAX_REAL_ELEMENTS

    def _run_fake(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if func in TRUTH:
            return True
        if func is aten.nonzero.default:
            return self._new((args[0].numel(), args[0].ndim), torch.int64)
        if func is aten.masked_select.default:
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            count = shape.numel() if isinstance(args[1], FakeTensor) else int(args[1].expand(shape).sum())
            return self._new((count,), args[0].dtype)
        if func in INDEXING:
            args = (args[0], self._integer_indices(args[1]), *args[2:])
        with self.fake:
            return func(*args, **kwargs)

    def _new(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        with self.fake:
            return torch.empty(shape, dtype=dtype, device="cpu")

    def _integer_indices(self, indices: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Masks among the indices as the positions of their true elements."""
        integers: list[torch.Tensor | None] = []
        for index in indices:
            if index is None or index.dtype not in (torch.bool, torch.uint8):
                integers.append(index)
            elif isinstance(index, FakeTensor):
                integers += [self._new((index.numel(),), torch.int64) for _ in range(index.ndim)]
            else:
                integers += index.nonzero().unbind(1)
        return integers


def dry_step(step: TrainingStep, precision: str, checkpointing: bool, samples: int) -> StepMemory:
    """Memory of any step but the first: the optimizer's state exists from the beginning."""
    with torch.device("meta"):
        model = step.build(precision, checkpointing)
    run = DryRun()
    _replace_tensors(model, run)
    optimizer = step.optimizer(model)
    batch = {
        name: run.empty(value) if value.device.type == "meta" else value for name, value in step.batch(samples).items()
    }
    for value in batch.values():
        run.register(value, "batch")
    trainable = trainable_parameters(model)
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda parameter: run.register(parameter.grad, "gradients"))
        for parameter in trainable
    ]
    batches = [batch] * min(step.accumulation, 2)  # a third adds nothing
    with run:
        take_step(model, optimizer, batches, precision, step.clip_norm, partial(setattr, run, "phase"))
    for value in tree_leaves(list(optimizer.state.values())):
        if isinstance(value, torch.Tensor):
            run.register(value, "optimizer_state")
    for hook in hooks:
        hook.remove()
    state, weights = run.alive["optimizer_state"], run.alive["trainable"] + run.alive["frozen"] + run.alive["buffers"]
    moving_average = weights if step.moving_average else 0
    # This first step creates the optimizer's state at its end; all later steps start with it.
    peaks = {phase: total + (0 if phase == "optimizer" else state) for phase, (total, _) in run.peaks.items()}
    phase = max(peaks, key=peaks.__getitem__)
    return StepMemory(
        trainable=run.alive["trainable"],
        frozen=run.alive["frozen"],
        buffers=run.alive["buffers"],
        gradients=sum(parameter.nbytes for parameter in trainable),
        optimizer_state=state,
        moving_average=moving_average,
        batch=run.alive["batch"],
        activations=run.max_activations,
        peak=peaks[phase] + moving_average,
        phase=phase,
        at_peak=run.peaks[phase][1],
        trainable_count=sum(parameter.numel() for parameter in trainable),
        frozen_count=sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad),
        operations=run.operations * step.accumulation // len(batches),
    )


def _replace_tensors(model: nn.Module, run: DryRun) -> None:
    """Put fake weights in place of those of the meta device; shared ones stay shared, integer buffers keep values."""
    fakes: dict[int, torch.Tensor] = {}
    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = module._parameters, module._buffers
        for table in tables:
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in fakes:
                    real = tensor.device.type != "meta" and not tensor.is_floating_point()
                    fakes[id(tensor)] = tensor if real else run.empty(tensor)
                    weight = "trainable" if tensor.requires_grad else "frozen"
                    run.register(fakes[id(tensor)], weight if isinstance(tensor, nn.Parameter) else "buffers")
                table[name] = fakes[id(tensor)]
