"""A training step never waits for the device: no number is read off a tensor between two log entries."""

import math

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from conftest import Normalised
from test_hf_trainer import make as make_hf
from test_nonfinite import COUNT, Learner, make
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero, torch.ops.aten.equal)


class Waits(TorchDispatchMode):
    """Counts reads of tensors by the training thread, per optimizer step."""

    def __init__(self):
        super().__init__()
        self.counts = [0]

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.counts[-1] += function.overloadpacket in WAITS
        return function(*arguments, **(named or {}))


@pytest.fixture
def waits(monkeypatch):
    mode = Waits()
    step = torch.optim.AdamW.step

    def next_step(optimizer, *arguments, **named):
        mode.counts.append(0)
        return step(optimizer, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", next_step)
    for name in ("tolist", "cpu", "numpy"):  # which a CPU does without an operation
        monkeypatch.setattr(torch.Tensor, name, counted(mode, getattr(torch.Tensor, name)))
    return mode


def counted(mode, method):
    def call(tensor, *arguments, **named):
        mode.counts[-1] += 1
        return method(tensor, *arguments, **named)

    return call


@pytest.mark.parametrize("poisoned", [[], [7]], ids=["finite", "skipped"])
def test_our_trainer(tmp_path, waits, poisoned):
    trainer, logged = make(tmp_path, poisoned, epochs=1)
    trainer.schedule = type(trainer.schedule)(1, 0.01, clip_norm=1.0, log_steps=4, save_steps=100)
    with waits:
        list(trainer.epochs())
    assert trainer.progress.skipped_steps == len(poisoned)
    # counts[n]: from the optimizer of step n to that of step n + 1; at 0 the sampler's order, on the CPU
    assert [number for number, count in enumerate(waits.counts) if count] == [0, 4, 6]
    assert [step for step, _ in logged] == [4, 6]


@pytest.mark.parametrize("poisoned", [[], [9]], ids=["finite", "skipped"])
def test_hugging_faces(tmp_path, waits, poisoned):
    trainer = make_hf(tmp_path, poisoned)
    trainer.args.logging_steps = trainer.args.save_steps = trainer.state.logging_steps = 4
    with waits:
        trainer.train()
    assert trainer.nonfinite_guard.total == 2 * len(poisoned)
    assert [number for number, count in enumerate(waits.counts) if count] == [0, 4, 6, 8, 12]  # 6: the second epoch
    logged = [entry["step"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == [4, 8, 12]


def test_a_gradient_scaler_and_the_flag_skip_alike(tmp_path):
    """fp16's scaler on a CPU: a NaN in the loss alone skips the step as an overflow does, and lowers the scale."""
    trainer, _ = make(tmp_path, [7], epochs=1, ema=0.5, model=Learner())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    trainer.accelerator.scaler = scaler
    trainer.optimizer = AcceleratedOptimizer(trainer.optimizer.optimizer, scaler=scaler)
    trainer.accelerator._optimizers = [trainer.optimizer]
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    list(trainer.epochs())
    assert trainer.progress.skipped_steps == 1 and scaler.get_scale() == 2.0**7
    assert all(parameter.isfinite().all() for parameter in trainer.eval_model.parameters())
    assert not all(map(torch.equal, weights, trainer.model.parameters()))
    steps = [state["step"] for state in trainer.optimizer.state_dict()["state"].values()]
    assert set(map(float, steps)) == {COUNT // 4 - 1}


def test_the_average_of_infinite_buffers_and_first_steps():
    from common.training.moving_average import MovingAverage

    model = Normalised()
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    average, skip = MovingAverage(model, 0.75), torch.tensor(True)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    with torch.no_grad():
        model.line.weight += 1
        average.update(model, skip)
        assert all(torch.equal(before[name], value) for name, value in average.state_dict().items())
        average.update(model, ~skip)  # copies
        model.line.weight += 4
        average.update(model, ~skip)
    torch.testing.assert_close(average.module.line.weight, before["module.line.weight"] + 1 + 0.25 * 4)
    assert torch.equal(average.module.mask, model.mask) and average.n_averaged == 2
