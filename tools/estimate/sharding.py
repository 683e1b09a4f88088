"""How are weights, gradients and optimizer state divided over devices, and what has to be sent? Formulas, not measured.

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5): stage 1 divides the optimizer's state, 2 the gradients
too, 3 the weights too. What autograd keeps is each device's own in all of them.
"""

from dataclasses import dataclass

from tools.estimate.dry_run import StepMemory


@dataclass(frozen=True)
class Share:
    """Bytes of one device."""

    engine: str
    weights: int
    gradients: int
    state: int
    rest: int  # activations, buffers, batch, moving average
    sent: int  # by one device in one optimizer step

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.state + self.rest


def divide(found: StepMemory, engine: str, world: int, precision: str) -> Share:
    """engine: none, DDP, ZeRO-1, ZeRO-2 or ZeRO-3.

    Gradients are counted whole beside the most of the activations, so a share is an upper bound: in the backward pass
    the ones grow while the others go. DDP keeps a second copy of the gradients, in the buckets that it sends. DeepSpeed
    holds weights and gradients in the number format of training, and a copy of the weights in fp32 with the optimizer.
    """
    rest = found.activations + found.buffers + found.batch + found.average
    weights, gradients, state = found.learning + found.frozen, found.gradients, found.state
    if engine == "none":
        return Share(engine, weights, gradients, state, rest, 0)
    if engine == "DDP":
        return Share(engine, weights, 2 * gradients, state, rest, ring(gradients, world))
    size = 2 if precision == "bf16" else 4
    weights, gradients = size * (found.learning_count + found.frozen_count), size * found.learning_count
    state += 4 * found.learning_count
    stage = int(engine[-1])
    whole = weights, gradients
    state = -(-state // world)
    if stage >= 2:
        gradients = -(-gradients // world)
    if stage == 3:
        weights = -(-weights // world)
    sent = _sent_by_zero(stage, *whole, size * found.learning_count, world)
    return Share(engine, weights, gradients, state, rest, sent)


def ring(size: int, world: int) -> int:
    """Bytes that each device sends to all-reduce `size` bytes around a ring: 2 (N - 1) / N of them."""
    return 2 * (world - 1) * size // world


def _sent_by_zero(stage: int, weights: int, gradients: int, learning: int, world: int) -> int:
    """Gradients are scattered and what learns is gathered; stage 3 gathers all weights in forward and in backward."""
    gathered = 2 * weights if stage == 3 else learning
    return (world - 1) * (gradients + gathered) // world
