"""Each named mode does, statistically, what its source says."""

import math

import pytest
import torch

from vitp.token_masking import MODES, build_masking

TRIALS, TOKENS, WIDTH = 2000, 40, 3


def draw(mode, probability=None, ratio=None, seed=0):
    """-> hidden (TRIALS, TOKENS) bool, kept (TRIALS, TOKENS) bool, over samples of equal size in one batch"""
    masking = build_masking(mode, probability, ratio, seed)
    features = torch.ones(TRIALS * TOKENS, WIDTH)
    shown, kept = masking(features, torch.arange(TRIALS).repeat_interleave(TOKENS))
    zeroed = (shown == 0).all(1)
    assert torch.equal(shown[~zeroed], features[~zeroed])
    return (zeroed | ~kept).view(TRIALS, TOKENS), kept.view(TRIALS, TOKENS)


def within(share, expected, count):
    """Four standard deviations of a binomial share."""
    return abs(share - expected) <= 4 * math.sqrt(max(expected * (1 - expected), 1e-9) / count)


@pytest.mark.parametrize("mode, probability, ratio", [("guide", 0.75, 0.3), ("paper", 1.0, 0.75), ("repo", 0.25, 0.75)])
def test_modes(mode, probability, ratio):
    hidden, kept = draw(mode)
    counts = hidden.sum(1)
    masked = counts > 0
    assert within(float(masked.float().mean()), probability, TRIALS)
    assert counts[masked].unique().tolist() == [TOKENS - math.ceil(round((1 - ratio) * TOKENS, 6))]
    assert bool(kept.all()) == (mode == "guide")  # zeroed tokens stay in the sequence, dropped ones do not
    shares = hidden[masked].float().mean(0)  # on the token axis, every token as often as any other
    assert all(within(float(share), ratio, int(masked.sum())) for share in shares)


def test_tokens_are_drawn_without_regard_to_each_other():
    hidden, _ = draw("paper")
    correlation = torch.corrcoef(hidden.float().T)
    off = correlation[~torch.eye(TOKENS, dtype=torch.bool)]
    assert abs(float(off.mean()) + 1 / (TOKENS - 1)) < 0.005  # exactly that, for draws of a fixed number


def test_numbers_given_take_the_place_of_the_mode():
    hidden, _ = draw("guide", 1.0, 0.5)
    assert hidden.sum(1).unique().tolist() == [20]
    hidden, kept = draw("repo", 1.0)
    assert hidden.sum(1).unique().tolist() == [30] and not kept.all()


def test_a_sample_is_one_however_many_tiles_it_has():
    masking = build_masking("paper", None, None, 0)
    sample = torch.tensor([7] * 40 + [3] * 8 + [9] * 256)
    _, kept = masking(torch.ones(len(sample), 2), sample)
    assert [int(kept[sample == name].sum()) for name in (7, 3, 9)] == [10, 2, 64]


def test_gradient_reaches_what_is_shown_and_nothing_else():
    masking = build_masking("guide", 1.0, None, 0)
    features = torch.ones(20, 2, requires_grad=True)
    shown, _ = masking(features, torch.zeros(20))
    shown.sum().backward()
    assert torch.equal(features.grad, (shown != 0).float())


def test_its_own_stream_of_numbers():
    torch.manual_seed(0)
    first, _ = draw("guide", seed=1)
    torch.manual_seed(5)
    again, _ = draw("guide", seed=1)
    other, _ = draw("guide", seed=2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    masking = build_masking("guide", None, None, 3)
    state, sample = masking.generator.get_state(), torch.zeros(64)
    before = torch.get_rng_state()
    one, _ = masking(torch.ones(64, 1), sample)
    masking.generator.set_state(state)
    two, _ = masking(torch.ones(64, 1), sample)
    assert torch.equal(one, two) and torch.equal(before, torch.get_rng_state())


def test_nothing_to_hide_and_what_is_refused():
    assert build_masking("guide", 0.0, None, 0) is None and build_masking("paper", None, 0.0, 0) is None
    for arguments, message in ((("guide", 1.5, None), "TMAug_prob"), (("guide", None, 1.0), "TMAug_ratio")):
        with pytest.raises(ValueError, match=message):
            build_masking(*arguments, 0)
    assert set(MODES) == {"guide", "paper", "repo"}
