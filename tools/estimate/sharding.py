"""Division of weights, gradients and optimizer state over devices, and its traffic: formulas, not measurements.

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5): stage 1 divides the optimizer state, 2 the gradients too, 3
the weights too. Activations are each device's own in all of them.
"""

from dataclasses import dataclass

from tools.estimate.dry_run import StepMemory


@dataclass(frozen=True)
class Share:
    """Bytes of one device."""

    weights: int
    gradients: int
    optimizer_state: int
    rest: int  # activations, buffers, batch, moving average
    sent: int  # by one device in one optimizer step

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer_state + self.rest


def divide(memory: StepMemory, engine: str, world: int, precision: str) -> Share:
    """engine: DDP, ZeRO-1, ZeRO-2 or ZeRO-3.

    An upper bound: all gradients are added to the maximum of the activations, although during the backward pass
    gradients grow while activations shrink. DDP keeps a second copy of the gradients, in its buckets. DeepSpeed holds
    weights and gradients in the training precision, and an fp32 copy of the weights with the optimizer state.
    """
    rest = memory.activations + memory.buffers + memory.batch + memory.moving_average
    if engine == "DDP":
        weights, sent = memory.trainable + memory.frozen, ring(memory.gradients, world)
        return Share(weights, 2 * memory.gradients, memory.optimizer_state, rest, sent)
    stage, size = int(engine[-1]), 2 if precision == "bf16" else 4
    weights, gradients = size * (memory.trainable_count + memory.frozen_count), size * memory.trainable_count
    # Gradients are scattered and updated weights gathered; stage 3 gathers all weights in forward and in backward.
    sent = (world - 1) * (gradients + (2 * weights if stage == 3 else gradients)) // world
    return Share(
        weights=-(-weights // world) if stage == 3 else weights,
        gradients=-(-gradients // world) if stage >= 2 else gradients,
        optimizer_state=-(-(memory.optimizer_state + 4 * memory.trainable_count) // world),
        rest=rest,
        sent=sent,
    )


def ring(size: int, world: int) -> int:
    """Bytes that each device sends to all-reduce `size` bytes around a ring: 2 (N - 1) / N of them."""
    return 2 * (world - 1) * size // world
