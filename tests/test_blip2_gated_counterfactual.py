"""Answers under another picture's style, and with closed gates."""

import pytest
import torch
from tiny.blip2 import KINDS, build, opened
from tiny.llava import picture

from blip2_gated.images import TowerFeatures
from blip2_gated.inference import name_probabilities, what_if

QUESTION = "In which style is this drawn?"


@pytest.mark.parametrize("kind, per_head", KINDS)
@torch.no_grad()
def test_without_style_gates_have_strength_0(kind, per_head):
    model = opened(kind, per_head)
    own = model.features(model.prepare([picture(1)]))
    closed = name_probabilities(model, own._replace(pooled=None), QUESTION)
    assert not torch.equal(closed, name_probabilities(model, own, QUESTION))
    for gate in model.gates:
        gate.scale.zero_()
    assert torch.equal(closed, name_probabilities(model, own, QUESTION))


def test_only_the_style_comes_from_the_other_image():
    model = opened("film", False)
    as_it_is, changed = what_if(model, picture(1), QUESTION, picture(2), num_beams=1)
    both = [model.features(model.prepare([picture(seed)])) for seed in (1, 2)]
    mixed = TowerFeatures(both[0].patches, both[1].pooled)
    for found, features in ((as_it_is, both[0]), (changed, mixed)):
        assert [found.answer] == model.predict_answers(features, [QUESTION], num_beams=1)
        assert found.styles == pytest.approx(
            dict(zip(model.styles.labels, model.style_logits(features.pooled)[0].softmax(-1).tolist()))
        )
    assert as_it_is.styles != changed.styles and as_it_is.names != changed.names
    itself, again = what_if(model, picture(1), QUESTION, picture(1), num_beams=1)
    assert itself == again == as_it_is
    _, nothing = what_if(model, picture(1), QUESTION, num_beams=1)
    assert nothing.styles == {} and list(nothing.names.values()) == sorted(nothing.names.values(), reverse=True)


@torch.no_grad()
def test_probabilities_of_names_by_hand():
    """A name after the other, a token after the other."""
    model = opened("kv", True)
    features = model.features(model.prepare([picture(1)]))
    expected = dict.fromkeys(model.styles.labels, 0.0)
    assert model.styles.spellings == {"black_cats": ["black cats"], "noto": ["Noto", "noto"]}
    for label, spellings in model.styles.spellings.items():
        for spelling in spellings:
            row = model.prompts.encode(QUESTION, spelling)
            batch = model.prompts.collate([row])
            batch.pop("labels")
            probabilities = model(**batch, features=features).logits[0].softmax(-1)
            share = 1.0
            for place, token in enumerate(row.answer, len(row.prompt)):
                share *= float(probabilities[place - 1, token])
            expected[label] += share
    found = name_probabilities(model, features, QUESTION)
    assert dict(zip(model.styles.labels, found.tolist())) == pytest.approx(expected, rel=1e-3)
    assert 0 < sum(expected.values()) < 1


def test_a_model_without_gates_is_an_error():
    model, _ = build("")
    with pytest.raises(ValueError, match="no gates"):
        what_if(model, picture(1), QUESTION)
