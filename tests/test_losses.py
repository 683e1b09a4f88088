"""Losses against slow loops, and one device against several."""

import math

import pytest
import torch
import torch.distributed as dist
from processes import on_devices
from torch.nn.parallel import DistributedDataParallel

from losses import mask_loss, sequence_losses, style_contrast, vector_losses
from model import StyleTrainingModel, VisionStyleEncoder


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 4, 5, 3, generator=generator)  # (B, L, D) each
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    present = torch.tensor([True, True, False, True])
    return predicted, target, mask, present


def slow_sequence(predicted, target, mask, present):
    squared, cosine, count = 0.0, 0.0, 0
    for b in range(len(predicted)):
        for position in range(predicted.shape[1]):
            if present[b] and mask[b, position]:
                p, t = predicted[b, position], target[b, position]
                squared += sum((x - y) ** 2 for x, y in zip(p.tolist(), t.tolist())) / len(p)
                cosine += 1 - float(p @ t) / math.sqrt(float(p @ p) * float(t @ t))
                count += 1
    return squared / count, cosine / count


def test_sequence_losses(sequences):
    found, expected = sequence_losses(*sequences), slow_sequence(*sequences)
    for one, other in zip(found, expected):
        assert math.isclose(float(one), other, rel_tol=1e-5)


def test_padding_and_absent_samples_weigh_nothing(sequences):
    predicted, target, mask, present = sequences
    predicted.requires_grad_(True)
    before = [float(loss) for loss in sequence_losses(predicted, target, mask, present)]
    changed = target.clone()
    changed[mask == 0] = 99.0
    changed[2] = -99.0  # the absent sample
    losses = sequence_losses(predicted, changed, mask, present)
    assert [float(loss) for loss in losses] == before
    sum(losses).backward()
    hidden = (mask == 0) | ~present[:, None]
    assert (predicted.grad[hidden] == 0).all() and (predicted.grad[~hidden] != 0).any(1).all()


def test_nothing_present_is_zero_with_a_gradient():
    predicted = torch.randn(3, 4, requires_grad=True)
    losses = vector_losses(predicted, torch.randn(3, 4), torch.zeros(3, dtype=torch.bool))
    sum(losses).backward()
    assert all(float(loss) == 0 for loss in losses) and (predicted.grad == 0).all()


def test_half_precision_does_not_overflow():
    predicted = torch.full((2, 16), 3e4, dtype=torch.float16)  # of length 120,000
    torch.testing.assert_close(
        torch.stack(vector_losses(predicted, -predicted, torch.ones(2))), torch.tensor([3.6e9, 2])
    )


def test_mask_loss():
    logits, mask = torch.randn(3, 4), torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    total = 0.0
    for b in (0, 2):
        for logit, wanted in zip(logits[b].tolist(), mask[b].tolist()):
            share = 1 / (1 + math.exp(-logit))
            total -= math.log(share if wanted else 1 - share) / 4
    assert math.isclose(float(mask_loss(logits, mask, torch.tensor([True, False, True]))), total / 2, rel_tol=1e-5)


def test_style_contrast_leaves_lone_anchors_out():
    style = torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(3)), dim=1)
    ids, temperature = [0, 0, 1, 1, 1, 2, 3], 0.2
    terms = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        bottom = sum(math.exp(float(style[i] @ style[j]) / temperature) for j in others)
        positives = [j for j in others if ids[j] == ids[i]]
        if positives:
            terms.append(
                -sum(math.log(math.exp(float(style[i] @ style[j]) / temperature) / bottom) for j in positives)
                / len(positives)
            )
    loss, lone = style_contrast(style, torch.tensor(ids), temperature)
    assert math.isclose(float(loss), sum(terms) / 5, rel_tol=1e-5) and math.isclose(float(lone), 2 / 7, rel_tol=1e-6)


def make_batch():
    generator = torch.Generator().manual_seed(1)
    has = torch.tensor([True, False, True, True, False, True, True, True])
    return {
        "image": torch.randint(256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8),
        "style_ids": torch.tensor([0, 0, 1, 1, 0, 1, 2, 2]),
        "embed": torch.randn(8, 5, 6, generator=generator),
        "mask": torch.tensor([[1, 1, 0, 0, 0]] * 3 + [[1] * 5] * 5),
        "pooled": torch.randn(8, 4, generator=generator),
        "has_embed": has,
        "has_mask": has,
        "has_pooled": ~has,
    }


def make_learner():
    torch.manual_seed(0)
    encoder = VisionStyleEncoder(
        "test_vit", image_size=32, sequence_length=5, embed_width=6, pooled_width=4, predict_mask=True, style_width=8
    )
    parts = ("embed_mse", "embed_cosine", "pooled_mse", "pooled_cosine", "mask", "style")
    return StyleTrainingModel(encoder, dict.fromkeys(parts, 1.0))


def device_gradients(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
    learner = DistributedDataParallel(make_learner())
    loss, parts = learner(**{name: tensor[rank::world] for name, tensor in make_batch().items()})
    loss.backward()
    if rank == 0:
        gradients = {name: p.grad for name, p in learner.module.named_parameters() if p.grad is not None}
        torch.save(gradients, f"{folder}/gradients{world}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_devices_give_the_gradients_of_one(tmp_path, world):
    on_devices(world, device_gradients, world, str(tmp_path))
    several = torch.load(tmp_path / f"gradients{world}.pt")
    alone = make_learner()
    alone(**make_batch())[0].backward()
    one = {name: parameter.grad for name, parameter in alone.named_parameters() if parameter.grad is not None}
    assert len(one) > 20 and one.keys() == several.keys()
    for name in one:
        torch.testing.assert_close(several[name], one[name], rtol=1e-4, atol=1e-6, msg=name)
