"""Word pretraining of an image network."""

import torch
from torch import nn

from common.samples.word_pretraining import pretrain_on_words

TEXTS = ["A red thing.", "a blue thing", "red, blue", "a thing"]


def learn(steps: int = 60) -> tuple[nn.Module, tuple[float, float]]:
    torch.manual_seed(0)
    images, network = torch.randn(4, 6), nn.Linear(6, 5)
    return network, pretrain_on_words(
        lambda rows: network(images[rows]),
        network.parameters(),
        TEXTS,
        steps=steps,
        batch_size=8,
        quiet=True,
        learning_rate=0.05,
    )


def test_words_are_learnt_and_the_seed_decides_all():
    network, (first, last) = learn()
    assert last < 0.3 * first
    again, losses = learn()
    assert losses == (first, last) and torch.equal(again.weight, network.weight)


def test_the_loss_is_that_of_independent_words():
    """Before anything is learnt: with a head that says p, the sum over words of the binary cross-entropy."""
    torch.manual_seed(0)
    network = nn.Linear(2, 3)
    first, _ = pretrain_on_words(
        lambda rows: network(torch.ones(len(rows), 2)),
        network.parameters(),
        ["yes no"] * 3,
        steps=1,
        batch_size=2,
        quiet=True,
    )
    torch.manual_seed(0)
    fresh = nn.Linear(2, 3)
    head = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2))
    chances = head(fresh(torch.ones(2))).sigmoid()
    assert abs(first + chances.log().sum().item()) < 1e-5
