"""Contrastive losses: open_clip's numbers, slow loops from the papers, equal on any number of devices."""

import math

import open_clip
import pytest
import torch
import torch.distributed as dist
from open_clip.loss import SigLipLoss
from processes import on_devices
from torch.nn.parallel import DistributedDataParallel

from clip.losses import clip_loss, positive_pairs, siglip_loss
from clip.model import CLIPModel
from clip.training_model import CLIPTrainingModel


def vectors(count=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(2, count, width, generator=generator), dim=-1)
    return unit[0].requires_grad_(), unit[1].requires_grad_()


NONE = torch.full((6,), -1)


@pytest.mark.parametrize("positives", [None, positive_pairs(torch.arange(6), NONE)])
def test_textbook_loss_is_open_clips(positives):
    (images, texts), scale = vectors(), torch.tensor(16.0)
    theirs = open_clip.ClipLoss()(images, texts, scale)
    wanted = torch.autograd.grad(theirs, (images, texts))
    ours = clip_loss(images, texts, scale, positives)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    for mine, other in zip(torch.autograd.grad(ours, (images, texts)), wanted):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("positives", [None, positive_pairs(torch.arange(6), NONE)])
def test_sigmoid_loss_is_open_clips(positives):
    (images, texts), scale, bias = vectors(), torch.tensor(10.0), torch.tensor(-10.0)
    theirs = SigLipLoss()(images, texts, scale, bias)
    torch.testing.assert_close(siglip_loss(images, texts, scale, bias, positives), theirs, rtol=0, atol=1e-6)


def test_several_positives_share_the_target():
    images, texts = vectors()
    text_ids, names = torch.tensor([0, 1, 0, 2, 3, 4]), torch.tensor([-1, 7, 8, 7, -1, -1])
    positives = positive_pairs(text_ids, names)
    total = 0.0
    for first, second in ((images, texts), (texts, images)):
        for i in range(6):
            scores = [16 * float(first[i].detach() @ second[j].detach()) for j in range(6)]
            bottom = math.log(sum(math.exp(score) for score in scores))
            own = [j for j in range(6) if i == j or text_ids[i] == text_ids[j] or (names[i] == names[j] != -1)]
            total += sum(bottom - scores[j] for j in own) / len(own) / 12
    assert math.isclose(clip_loss(images, texts, torch.tensor(16.0), positives).item(), total, rel_tol=1e-5)
    assert positives.sum(1).tolist() == [2, 2, 2, 2, 1, 1]


def test_equal_captions_are_not_pushed_apart():
    text = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    images = torch.tensor([[1.0, 0], [1, 0], [0, 1]], requires_grad=True)
    shared = clip_loss(images, text, torch.tensor(100.0), positive_pairs(torch.tensor([0, 0, 1]), NONE[:3]))
    plain = clip_loss(images, text, torch.tensor(100.0))
    # With both right answers known half and half is the best that can be, and its gradient is nothing.
    assert math.isclose(shared.item(), 2 / 3 * math.log(2), rel_tol=1e-5)
    assert math.isclose(plain.item(), shared.item(), rel_tol=1e-5)
    images = torch.tensor([[1.0, 0], [0.9, 0.436], [0, 1]], requires_grad=True)
    texts = torch.tensor([[1.0, 0], [0.9, 0.436], [0, 1]])  # the two captions begin to drift apart
    shared = clip_loss(images, texts, torch.tensor(10.0), positive_pairs(torch.tensor([0, 0, 1]), NONE[:3]))
    pull = torch.autograd.grad(shared, images)[0]
    push = torch.autograd.grad(clip_loss(images, texts, torch.tensor(10.0)), images)[0]
    apart = texts[0] - texts[1]
    assert push[0] @ apart < 0 < pull[0] @ apart


SMALL = {
    "architecture": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    },
    "tokenizer": {"kind": "clip", "context_length": 6},
}


def learner(loss="clip", **more):
    torch.manual_seed(0)
    return CLIPTrainingModel(CLIPModel(config={**SMALL, "sigmoid": loss == "siglip"}), loss, **more)


def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "tokens": torch.randint(1, 20, (8, 6), generator=generator),
        "text_ids": torch.tensor([0, 1, 2, 3, 0, 5, 6, 7]),
        "group_ids": torch.tensor([-1, 1, -1, 1, -1, -1, 2, 2]),
    }


LOSSES = ("clip", "siglip")


def device_run(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
    share = 8 // world
    for loss in LOSSES:
        model = DistributedDataParallel(learner(loss))
        value, _ = model(**{name: tensor[rank * share : (rank + 1) * share] for name, tensor in batch().items()})
        value.backward()
        gradients = {name: p.grad for name, p in model.module.named_parameters()}
        torch.save((value.detach(), gradients), f"{folder}/{loss}{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_devices_give_the_gradients_of_one(tmp_path, world):
    on_devices(world, device_run, world, str(tmp_path))
    for loss in LOSSES:
        alone = learner(loss)
        value, _ = alone(**batch())
        value.backward()
        assert all(parameter.grad is not None for parameter in alone.parameters())
        for rank in (0, world - 1):
            other, several = torch.load(tmp_path / f"{loss}{world}-{rank}.pt")
            torch.testing.assert_close(other, value.detach())  # what is logged is the same number everywhere
            for name, parameter in alone.named_parameters():
                near = 1e-6 * max(1.0, parameter.grad.abs().max().item())
                torch.testing.assert_close(several[name], parameter.grad, rtol=1e-4, atol=near, msg=name)


def test_slices_give_the_gradients_of_the_whole_batch():
    found = []
    for slices in (1, 4, 3):
        model = learner(slices=slices)
        model.model.network.visual.patch_dropout = open_clip.transformer.PatchDropout(0.5)  # slices draw for themselves
        model.eval()
        loss, _ = model(**batch())
        loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        for name, gradient in gradients.items():
            near = 1e-6 * max(1.0, gradient.abs().max().item())
            torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-4, atol=near, msg=name)


def test_slices_repeat_their_own_random_choices():
    """With patch dropout the second pass must leave out the patches that the first left out: compare with a numeric
    derivative, which sees one draw only."""
    model = learner(slices=2)
    model.model.network.visual.patch_dropout = open_clip.transformer.PatchDropout(0.5)
    model.train()
    torch.manual_seed(5)
    model(**batch())[0].backward()
    projection = model.model.network.visual.proj
    step, values = 1e-2, []
    for sign in (1, -1):
        with torch.no_grad():
            projection[3, 4] += sign * step
        torch.manual_seed(5)
        values.append(float(model(**batch())[0].detach()))
        with torch.no_grad():
            projection[3, 4] -= sign * step
    assert math.isclose((values[0] - values[1]) / (2 * step), float(projection.grad[3, 4]), rel_tol=0.02, abs_tol=1e-4)


def test_the_temperature_stays_in_its_bounds():
    model = learner()
    with torch.no_grad():
        model.model.logit_scale.fill_(9.0)
    assert math.isclose(float(model.model.scale), 100, rel_tol=1e-5)
    model(**batch())
    assert math.isclose(float(model.model.logit_scale), math.log(100), rel_tol=1e-6)
