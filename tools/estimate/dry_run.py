"""What does a training step need in memory, and how much does it compute? Asked of the step itself, without taking it.

TrainingStep -> every operation of forward, backward and optimizer with tensors that have shapes and no values
             -> bytes alive after each of them, by kind; multiplications and additions

Autograd, checkpointing, autocast and the optimizer are PyTorch's own, so what they keep and when they let go of it is
known and not modelled. Tensors made of integers alone (token ids, masks, labels) are really computed while they are
small: how many tokens are learnt, for instance, decides shapes. A mask of which nothing is known counts as all true.

Seen is what operations return. What a kernel needs inside itself (oneDNN's and cuDNN's workspaces), the rounding and
the gaps of an allocator, and what a library keeps for itself are not.
"""

import math
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from tools.estimate.training_step import TrainingStep, take_step

aten = torch.ops.aten
KNOWN_SIZE = 2**20  # elements up to which tensors made of integers are computed
BYTES_OF_MASKS = (torch.bool, torch.uint8)


@dataclass(frozen=True)
class StepMemory:
    """Bytes, unless said otherwise."""

    learning: int  # weights that learn
    frozen: int  # weights that stand still
    buffers: int
    gradients: int
    state: int  # the optimizer's
    average: int  # moving average of the weights
    batch: int
    activations: int  # and what is made on the way: the most that is alive of it at one time
    peak: int  # of everything
    phase: str  # in which it is reached
    at_peak: dict[str, int]  # kind -> bytes alive then
    learning_count: int  # numbers
    frozen_count: int
    operations: int  # of matrix products, convolutions and attention, in a whole optimizer step


class DryRun(TorchDispatchMode):
    """While it is entered, operations on tensors without values give tensors without values; all are counted."""

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.kinds: dict[int, tuple[str, int]] = {}  # storage -> kind, bytes
        self.watched: dict[int, weakref.ref] = {}
        self.alive: Counter[str] = Counter()
        self.operations = 0
        self.phase = ""
        self.most = 0  # bytes of activations
        self.peaks: dict[str, tuple[int, dict[str, int]]] = {}  # phase -> bytes of everything, by kind

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        """A tensor of that shape without values, on the CPU as far as anybody asks."""
        with self.fake:
            made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")
        return nn.Parameter(made, like.requires_grad) if isinstance(like, nn.Parameter) else made

    def register(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor, or count it as another kind from now on. Views and shared weights count once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self.kinds.get(key)
        size = storage.nbytes()
        if known:
            self.alive[known[0]] -= known[1]
        else:
            self.watched[key] = weakref.ref(storage, lambda _: self._gone(key))
        self.kinds[key] = kind, size
        self.alive[kind] += size

    def _gone(self, key: int) -> None:
        kind, size = self.kinds.pop(key)
        del self.watched[key]
        self.alive[kind] -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        known = not any(isinstance(one, FakeTensor) for one in given)
        small = all(one.numel() <= KNOWN_SIZE for one in given)
        if known and small:
            result = func(*args, **kwargs)
        elif small and self._is_filled(func, args):
            result = func(self._known(args[0]), *args[1:], **kwargs)
        else:
            result = self._without_values(func, args, kwargs)
            if _changes_first(func) and not isinstance(args[0], FakeTensor):
                result = args[0]
        self._count(func, args, kwargs, result)
        return result

    def _without_values(self, func, args, kwargs) -> Any:
        if func in (aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default):
            return True
        if func is aten.nonzero.default:
            return self._new(args[0], (args[0].numel(), args[0].ndim), torch.int64)
        if func is aten.masked_select.default:
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            known = not isinstance(args[1], FakeTensor)
            return self._new(args[0], (int(args[1].expand(shape).sum()) if known else shape.numel(),), args[0].dtype)
        if func in INDEXING:
            args = (args[0], self._numbers(args[1]), *args[2:])
        with self.fake:
            return func(*args, **kwargs)

    def _is_filled(self, func, args) -> bool:
        """One number everywhere, whatever the given tensor holds. The optimizer's state is left out: it is large."""
        if func not in FILLED or self.phase == "optimizer":
            return False
        return len(args) < 2 or not isinstance(args[1], list | tuple) or math.prod(args[1]) <= KNOWN_SIZE

    def _known(self, like: torch.Tensor) -> torch.Tensor:
        """Stands for `like` where its shape alone matters; one element of memory."""
        return torch.empty(1, dtype=like.dtype).as_strided(like.shape, [0] * like.ndim)

    def _new(self, like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        with self.fake:
            return torch.empty(shape, dtype=dtype, device="cpu")

    def _numbers(self, indices: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Masks among the indices as the numbers of what they choose."""
        found: list[torch.Tensor | None] = []
        for one in indices:
            if one is None or one.dtype not in BYTES_OF_MASKS:
                found.append(one)
            elif isinstance(one, FakeTensor):
                found += [self._new(one, (one.numel(),), torch.int64) for _ in range(one.ndim)]
            else:
                found += one.nonzero().unbind(1)
        return found

    def _count(self, func, args, kwargs, result) -> None:
        formula = OPERATIONS.get(func._overloadpacket)
        if formula:
            self.operations += formula(*args, **kwargs, out_val=result)
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self.kinds:
                self.register(one, "activations")
        total = sum(self.alive.values())
        if self.phase != "optimizer":
            self.most = max(self.most, self.alive["activations"])
        if total > self.peaks.get(self.phase, (0,))[0]:
            self.peaks[self.phase] = total, dict(self.alive)


def _changes_first(func) -> bool:
    """An operation in place: its result is what it was given."""
    arguments = func._schema.arguments
    first = arguments[0].alias_info if arguments else None
    return first is not None and first.is_write and len(func._schema.returns) == 1


INDEXING = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten._unsafe_index_put.default,
)
FILLED = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
OPERATIONS = {  # the attention of CPUs is not in torch's own list
    **flop_registry,
    # Either gradient costs what the forward pass does; torch's own formula takes grouped weights for whole ones.
    aten.convolution_backward: lambda gradient, given, weight, *rest, **__: (
        sum(rest[-1][:2]) * conv_flop_count(given.shape, weight.shape, gradient.shape, rest[4])
    ),
    aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query.shape, key.shape, value.shape
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, query, key, value, *_, **__: (
        sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)
    ),
}


def dry_step(step: TrainingStep, precision: str, checkpointing: bool, samples: int) -> StepMemory:
    """A step as all but the first are: with the optimizer's state there from its beginning."""
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
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda one: run.register(one.grad, "gradients"))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    batches = [batch] * min(step.accumulation, 2)  # a third adds nothing

    def at(phase: str) -> None:
        run.phase = phase

    with run:
        take_step(model, optimizer, batches, precision, step.clip_norm, at)
    for value in tree_leaves(list(optimizer.state.values())):
        if isinstance(value, torch.Tensor):
            run.register(value, "state")
    for hook in hooks:
        hook.remove()
    return _summary(step, model, run, len(batches))


def _summary(step: TrainingStep, model: nn.Module, run: DryRun, passes: int) -> StepMemory:
    learning = [one for one in model.parameters() if one.requires_grad]
    frozen = [one for one in model.parameters() if not one.requires_grad]
    state, weights = run.alive["state"], run.alive["learning"] + run.alive["frozen"] + run.alive["buffers"]
    average = weights if step.average else 0
    # The step that was run has made the optimizer's state at its end; every other finds it there.
    later = {phase: total + (0 if phase == "optimizer" else state) for phase, (total, _) in run.peaks.items()}
    phase = max(later, key=later.get)
    return StepMemory(
        run.alive["learning"],
        run.alive["frozen"],
        run.alive["buffers"],
        sum(one.numel() * one.element_size() for one in learning),
        state,
        average,
        run.alive["batch"],
        run.most,
        later[phase] + average,
        phase,
        run.peaks[phase][1],
        sum(one.numel() for one in learning),
        sum(one.numel() for one in frozen),
        run.operations * step.accumulation // passes,
    )


def _replace_tensors(model: nn.Module, run: DryRun) -> None:
    """Weights of the meta device -> weights of the CPU without values, shared ones still shared."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    kept = tensor.device.type != "meta" and not tensor.is_floating_point()
                    made[id(tensor)] = tensor if kept else run.empty(tensor)
                    learns = isinstance(tensor, nn.Parameter)
                    kind = ("learning" if tensor.requires_grad else "frozen") if learns else "buffers"
                    run.register(made[id(tensor)], kind)
                table[name] = made[id(tensor)]
