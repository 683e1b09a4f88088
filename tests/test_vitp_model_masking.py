"""ViTP's token masking inside the model: shorter sequences or zeroed tokens, in training alone."""

import torch
from tiny.vitp import CONTEXT_ID, tiny_batch, tiny_model

from vitp.token_masking import build_masking


def seen_by_language_model(model, batch) -> dict:
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(lambda *given: seen.update(given[2]), with_kwargs=True)
    model(**batch)
    hook.remove()
    return seen


def test_paper_mode_makes_sequences_shorter_and_keeps_positions():
    model, batch = tiny_model().train(), tiny_batch((3, 2), text=6)
    whole = seen_by_language_model(model, batch)
    assert whole["inputs_embeds"].shape[1] == 18
    model.masking = build_masking("paper", None, None, seed=0)
    seen = seen_by_language_model(model, batch)
    assert seen["inputs_embeds"].shape[1] == 6 + 3  # a quarter of 12 image tokens stays
    positions, mask = seen["position_ids"], seen["attention_mask"]
    assert mask.sum(1).tolist() == [9, 8]
    for row, tiles in enumerate((3, 2)):
        kept = positions[row][mask[row].bool()].tolist()
        assert (
            kept == sorted(set(kept)) and kept[:2] == [0, 1] and kept[-4:] == list(range(2 + 4 * tiles, 6 + 4 * tiles))
        )
        for place, position in enumerate(kept):  # and stand for what stood there
            assert torch.allclose(seen["inputs_embeds"][row, place], whole["inputs_embeds"][row, position], atol=1e-6)


def test_guide_mode_zeroes_and_keeps_the_length():
    model, batch = tiny_model().train(), tiny_batch((3, 2))
    whole = seen_by_language_model(model, batch)
    model.masking = build_masking("guide", 1.0, None, seed=0)
    seen = seen_by_language_model(model, batch)
    assert seen["inputs_embeds"].shape == whole["inputs_embeds"].shape
    zeros = (seen["inputs_embeds"] == 0).all(-1)
    assert zeros.sum(1).tolist() == [12 - 9, 8 - 6]  # ceil(0.7 N) stay
    assert (batch["input_ids"][zeros] == CONTEXT_ID).all()
    assert torch.equal(seen["position_ids"], whole["position_ids"])


def test_masking_is_for_training_only():
    model, batch = tiny_model().eval(), tiny_batch((3, 2))
    plain = model(**batch).loss
    model.masking = build_masking("paper", None, None, seed=0)
    assert torch.equal(model(**batch).loss, plain)
    assert not torch.equal(model.train()(**batch).loss, plain)
