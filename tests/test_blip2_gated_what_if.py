"""Telling a BLIP-2's gates of another picture's style, or of nothing."""

import pytest
import torch
from llava_tiny import picture
from test_blip2_gated_model import KINDS, build

from blip2_gated.model import Features
from blip2_gated.what_if import first_word_styles, what_if

QUESTION = "In which style is this drawn?"


def opened(kind, per_head):
    """A model whose gates do something: at the start they are the identity."""
    model, _ = build(kind, per_head)
    torch.manual_seed(3)
    for gate in model.gates:
        for parameter in gate.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return model


@pytest.mark.parametrize("kind, per_head", KINDS)
@torch.no_grad()
def test_nothing_told_is_a_gate_of_strength_0(kind, per_head):
    model = opened(kind, per_head)
    own = model.features(model.prepare([picture(1)]))
    closed = first_word_styles(model, own._replace(pooled=None), QUESTION)
    assert not torch.equal(closed, first_word_styles(model, own, QUESTION))
    for gate in model.gates:
        gate.scale.zero_()
    assert torch.equal(closed, first_word_styles(model, own, QUESTION))


def test_only_the_style_is_anothers():
    model = opened("film", False)
    as_it_is, told = what_if(model, picture(1), QUESTION, picture(2), num_beams=1)
    both = [model.features(model.prepare([picture(seed)])) for seed in (1, 2)]
    mixed = Features(both[0].patches, both[1].pooled)
    for found, features in ((as_it_is, both[0]), (told, mixed)):
        assert [found.answer] == model.predict_answers(features, [QUESTION], num_beams=1)
        assert found.seen == pytest.approx(dict(zip(model.styles.labels, model.style_logits(features.pooled)[0]
                                                    .softmax(-1).tolist())))  # fmt: skip
    assert as_it_is.seen != told.seen and as_it_is.named != told.named
    itself, again = what_if(model, picture(1), QUESTION, picture(1), num_beams=1)
    assert itself == again == as_it_is
    _, nothing = what_if(model, picture(1), QUESTION, num_beams=1)
    assert nothing.seen == {} and list(nothing.named.values()) == sorted(nothing.named.values(), reverse=True)


@torch.no_grad()
def test_first_word_by_hand():
    model = opened("kv", True)
    features = model.features(model.prepare([picture(1)]))
    batch = model.prompts.collate([model.prompts.encode(QUESTION)])
    batch.pop("labels")
    probabilities = model(**batch, features=features).logits[0, -1].softmax(-1)
    expected = [0.0] * len(model.styles.labels)
    for token, number in zip(model.styles.token_ids.tolist(), model.styles.token_classes.tolist()):
        expected[number] += float(probabilities[token])
    assert first_word_styles(model, features, QUESTION).tolist() == pytest.approx(expected)
    assert 0 < sum(expected) < 1


def test_a_model_without_gates_says_so():
    model, _ = build("")
    with pytest.raises(ValueError, match="no gates"):
        what_if(model, picture(1), QUESTION)
