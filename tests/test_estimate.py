"""Estimates: exact for a network counted by hand, within a tenth of a real step for each system."""

import json
from collections import Counter

import pytest
import torch
from conftest import TINY_MODEL
from tiny.llava import write_llava
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from tools.estimate import estimate
from tools.estimate.dry_run import DryRun, dry_step
from tools.estimate.sharding import divide, ring
from tools.estimate.training_step import TrainingStep, adamw, meta_tensor, random_batch, take_step

WIDE, HIDDEN = 40, 300


class Network(nn.Module):
    """(B, WIDE) -> Linear -> ReLU -> Linear -> a loss; a third layer stands still."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDE, HIDDEN), nn.Linear(HIDDEN, 1)
        self.still = nn.Linear(1, 1).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(WIDE))

    def forward(self, rows):
        return (self.still(self.second(self.first(rows - self.centre).relu())).sum(),)


def network_step(**more):
    def batch(samples):
        return {"rows": meta_tensor((samples, WIDE), torch.float32)}

    return TrainingStep(lambda precision, checkpointing: Network(), batch, adamw, 512, "a network", **more)


def test_a_network_counted_by_hand():
    found = dry_step(network_step(), "fp32", False, 512)
    numbers = WIDE * HIDDEN + HIDDEN + HIDDEN + 1
    assert (found.trainable_count, found.frozen_count) == (numbers, 2)
    assert (found.trainable, found.frozen, found.buffers) == (4 * numbers, 8, 4 * WIDE)
    assert found.gradients == 4 * numbers
    assert (
        found.optimizer_state == 2 * 4 * numbers + 4 * 4
    )  # two moments, and the number of steps of each of four tensors
    assert found.batch == 4 * 512 * WIDE
    # At the most: what ReLU gave, its gradient, the gradient of what it was given; and rows - centre.
    alive = 4 * 512 * (3 * HIDDEN + WIDE)
    assert alive <= found.activations <= alive + 64 and found.phase == "backward"
    static = found.trainable + found.frozen + found.buffers + found.optimizer_state + found.batch
    assert found.peak == static + found.at_peak["activations"] + found.at_peak["gradients"]
    # Forward 2 n m k; backward the same for weights, and for what came in but of the first layer, whose rows are given.
    products = 2 * 512 * (WIDE * HIDDEN + HIDDEN + 1)
    assert found.operations == products + 2 * 512 * (WIDE * HIDDEN + 2 * HIDDEN + 1)


class Convolutions(nn.Module):
    """(B, 4, 10, 10) -> 8 channels, each then by itself; up again, in two groups."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        )

    def forward(self, image):
        return (self.layers(image).sum(),)


def test_grouped_convolutions_counted_by_hand():
    def batch(samples):
        return {"image": meta_tensor((samples, 4, 10, 10), torch.float32)}

    step = TrainingStep(lambda precision, checkpointing: Convolutions(), batch, adamw, 2, "convolutions")
    first, alone, up = 8 * 8 * 8 * (4 * 9), 6 * 6 * 8 * 9, 6 * 6 * 8 * (3 * 4)  # places, channels, what each looks at
    # Both gradients of each but of the first, whose image is given.
    assert dry_step(step, "fp32", False, 2).operations == 2 * 2 * (2 * first + 3 * alone + 3 * up)


def test_accumulation_keeps_gradients_and_a_moving_average_is_one_more_copy():
    plain = dry_step(network_step(), "fp32", False, 512)
    gathered = dry_step(network_step(accumulation=4), "fp32", False, 512)
    average = dry_step(network_step(moving_average=True), "fp32", False, 512)
    assert gathered.operations == 4 * plain.operations and plain.peak < gathered.peak <= plain.peak + plain.gradients
    assert average.peak - plain.peak == average.moving_average == plain.trainable + plain.frozen + plain.buffers


def test_half_precision_halves_what_linear_layers_keep():
    full, half = (dry_step(network_step(), precision, False, 4096) for precision in ("fp32", "bf16"))
    assert half.trainable == full.trainable and half.optimizer_state == full.optimizer_state
    assert 0.4 < half.activations / full.activations < 0.8


def test_integers_are_computed_and_unknown_masks_count_as_true():
    run, pixels = DryRun(), meta_tensor((6, 4), torch.float32)
    with run:
        rows = run.empty(pixels)
        known = torch.tensor([1, 0, 1, 1, 0, 0]) == 1
        assert rows[known].shape == (3, 4) and rows.masked_select(known[:, None]).shape == (12,)
        assert rows[rows > 0].shape == (24,) and (rows > 0).nonzero().shape == (24, 2)
        assert bool((rows > 0).any()) and not bool((known.sum() > 3).any())
    assert run.alive["activations"] == rows.nbytes + known.nbytes


def test_memory_that_is_let_go_is_not_counted():
    run = DryRun()
    with run:
        rows = run.empty(meta_tensor((1000,), torch.float32))
        run.register(rows, "batch")
        for _ in range(5):
            other = rows * 2
        assert run.alive == Counter({"batch": 4000, "activations": 4000}) and run.max_activations == 8000
        view = other[:10]
        del other
        assert run.alive["activations"] == 4000  # a view keeps the whole
        del view
        assert run.alive["activations"] == 0


@pytest.fixture
def systems(tmp_path, vitp_parts):
    """The flags of each system's tiny model, wide enough for activations to be most of a step."""
    built = vitp_parts / "parts"
    return {
        "style": ["--data_dir", str(tmp_path / "none"), *TINY_MODEL, "--image_size", "160", "--batch_size", "64"],
        "clip": ["--model_name", "small", "--batch_size", "16"],
        "blip2": ["--demo", "--training.batch_size", "8"],
        "vitp": [
            "--vision_config",
            str(built / "vision.json"),
            "--llm",
            str(built / "config.json"),
            "--max_seq_length",
            "300",
            "--per_device_train_batch_size",
            "8",
        ],
        "llava": [
            "--model_id",
            str(write_llava(tmp_path / "llava")),
            "--max_length",
            "300",
            "--lora_rank",
            "4",
            "--per_device_train_batch_size",
            "8",
        ],
    }


def step_of(system, words):
    return estimate.read_step([system, *words])[1]


def measured(step, checkpointing=False):
    """The allocator's own account of a real step: bytes alive at the most, and multiplications and additions."""
    torch.manual_seed(0)
    model = step.build("fp32", checkpointing)
    optimizer, batch = step.optimizer(model), random_batch(step.batch(step.samples))
    batches = [batch] * min(step.accumulation, 2)
    take_step(model, optimizer, batches, "fp32", step.clip_norm)
    held = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in [
            *model.parameters(),
            *model.buffers(),
            *batch.values(),
            *(value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)),
        ]
    }
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        take_step(model, optimizer, batches, "fp32", step.clip_norm)
    moves = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    alive = most = 0
    for move in sorted(moves, key=lambda one: one.start_ns()):
        alive += move.nbytes()
        most = max(most, alive)
    return sum(held.values()) + most


@pytest.mark.parametrize("system", estimate.SYSTEMS)
def test_a_real_step_of_each_system(systems, system):
    step = step_of(system, systems[system])
    estimated = dry_step(step, "fp32", False, step.samples)
    found = measured(step)
    assert abs(estimated.peak / found - 1) < 0.1, f"{estimated} for {found}"
    assert estimated.activations > 0.3 * estimated.peak  # else only weights would have been compared


def test_tiles_are_those_of_the_meta_file(systems, tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    entry = {"root": "", "annotation": "a.jsonl"}
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"a": {**entry, "max_dynamic_patch": 5}, "b": entry}))
    words = [*systems["vitp"], "--max_dynamic_patch", "2", "--meta_path"]
    tiles = [
        step_of("vitp", [*words, str(path)]).batch(1)["pixel_values"].shape[0] for path in (meta, tmp_path / "none")
    ]
    assert tiles == [6, 3]  # with the thumbnail
    assert f"images of 5 tiles, the maximum in {meta}" in step_of("vitp", [*words, str(meta)]).assumptions


def test_operations_are_those_that_pytorch_counts(systems):
    step = step_of("style", systems["style"])
    estimated = dry_step(step, "fp32", False, step.samples)
    model = step.build("fp32", False)
    with FlopCounterMode(display=False) as counter:
        take_step(model, step.optimizer(model), [random_batch(step.batch(step.samples))], "fp32")
    # PyTorch's own list has attention of CPUs from 2.15 on: 2 products of (B, H, N, N), in the backward pass 5.
    blocks = [one for one in model.modules() if type(one).__name__ == "Attention"]
    tokens = 1 + (160 // 16) ** 2
    attention = sum(7 * 2 * step.samples * one.num_heads * tokens**2 * one.head_dim for one in blocks)
    listed = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu in flop_registry
    assert estimated.operations == counter.get_total_flops() + (not listed) * attention and attention > 0


def test_checkpointing_needs_less_and_computes_more(systems):
    step = step_of("clip", systems["clip"])
    plain, checked = (dry_step(step, "fp32", way, step.samples) for way in (False, True))
    assert checked.activations < 0.6 * plain.activations and 1.2 < checked.operations / plain.operations < 1.4


def test_division_by_formula():
    found = dry_step(network_step(), "bf16", False, 512)
    numbers, rest = found.trainable_count, found.activations + found.buffers + found.batch
    whole = found.trainable + found.frozen + 2 * found.gradients + found.optimizer_state + rest
    assert divide(found, "DDP", 8, "bf16").total == whole
    zero = {stage: divide(found, f"ZeRO-{stage}", 8, "bf16") for stage in (1, 2, 3)}
    for one in zero.values():  # Rajbhandari et al. 2020: 12 bytes of state for each weight, here and a few for counters
        assert abs(one.optimizer_state - 12 * numbers / 8) < 8 and one.rest == rest
    assert zero[1].gradients == 2 * numbers and zero[2].gradients == -(-2 * numbers // 8)
    assert zero[1].weights == zero[2].weights == 2 * (numbers + 2) and zero[3].weights == -(-2 * (numbers + 2) // 8)
    assert ring(800, 8) == 1400 and ring(800, 1) == 0 and zero[3].sent > zero[2].sent


def test_the_table(systems, capsys):
    words = ["--world_size", "2", "--tflops", "0.1", "--gpu_memory_gib", "0.5"]
    found = estimate.main(["style", *systems["style"], *words])
    shown = capsys.readouterr().out
    assert set(found) == {(one, way) for one in ("fp32", "bf16") for way in (False, True)}
    for label in (
        "trainable weights",
        "activations, at most",
        "peak of a step",
        "seconds at 40% of 0.1 TFLOPS",
        "images that fit into 0.5 GiB",
        "DDP, fp32",
    ):
        assert label in shown
    assert "32 images in a forward pass of a device" in shown and "ZeRO" not in shown  # our own loop knows DDP alone
    line = next(one for one in shown.splitlines() if one.startswith("images that fit"))
    fits = int(line.split()[6])
    step = step_of("style", systems["style"])
    inside, outside = (dry_step(step, "fp32", False, samples).peak for samples in (fits, fits + fits // 20))
    assert inside <= 2**29 < outside


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "system"),
        (["clipp"], "'clipp'"),
        (["clip", "--batch_sise", "4"], "unknown flag '--batch_sise'; did you mean --batch_size"),
        (["clip", "--batch_size", "9", "--world_size", "2"], "--batch_size 9: cannot be shared equally by 2"),
        (["clip", "--model_name", "ViT-B33"], "unknown model 'ViT-B33'; did you mean ViT-B/32"),
        (["clip", "--model_name", "open/model"], "open/model: is a trained model"),
        (["style", "--model_name", "vit_bas", "--data_dir", "none"], "unknown timm model 'vit_bas'"),
        (["style", "--text_tokens", "9"], "--text_tokens: style reads no text"),
        (["vitp"], "give --model_name_or_path, or --vision_config and --llm"),
        (["vitp", "--model_name_or_path", "gone"], "gone/config.json: no such file"),
        (["llava", "--model_id", "gone/away"], "gone/away: its config cannot be loaded"),
        (["blip2", "--model.blip2", "gone/away"], "--model.blip2 gone/away: cannot be loaded"),
        (["clip", "--world_size", "0"], "--world_size: '0'"),
        (["clip", "--utilization", "40"], "--utilization: '40'"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises((ValueError, OSError)) as caught:
        estimate.main(words)
    assert message in str(caught.value) and "\n" not in str(caught.value)
