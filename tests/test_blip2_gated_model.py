"""Parity with transformers' BLIP-2, formulas of the gates, trainable and frozen parts."""

import re

import pytest
import torch
from conftest import ROOT
from tiny.blip2 import KINDS, batch_of, build, run
from transformers import Blip2ForConditionalGeneration

from blip2_gated import gates
from blip2_gated.images import TowerFeatures


@pytest.mark.parametrize("kind, per_head", [*KINDS, ("", False)])
@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4, "dropout": 0.1}])
def test_step_0_is_plain_blip2_bit_for_bit(kind, per_head, lora):
    model, plain = build(kind, per_head, lora=lora)
    batch = batch_of(model)
    with torch.no_grad():
        ours = run(model, batch).logits
        theirs = plain(
            pixel_values=model.normalise(batch["image"]),
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
        ).logits
    assert torch.equal(ours, theirs)


def test_the_gate_of_contributing_scales_values_alone(monkeypatch):
    scope = vars(gates).copy()
    exec(re.search(r"```python\n(class .*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1], scope)
    monkeypatch.setitem(gates.GATES, "value", scope["ValueGate"])
    gate = build("value")[0].gates[0]
    key, value, control = torch.randn(2, 7, 48), torch.randn(2, 7, 48), torch.randn(2, 3, 48)
    assert torch.equal(gate(torch.add, key, value, control), key + value)
    torch.nn.init.normal_(gate.project.weight)
    factor = (gate(torch.add, key, value, control) - key) / value
    assert (factor - 1).abs().amin(1).max() > 0.5  # of some channel, in every position


@pytest.mark.parametrize("kind, per_head", KINDS)
def test_an_open_gate_follows_its_formula(kind, per_head):
    """One cross-attention against a slow one written from gates.py's formulas."""
    model, _ = build(kind, per_head)
    torch.manual_seed(3)
    for parameter in model.gates[0].parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    attention = model.blip2.qformer.encoder.layer[0].crossattention.attention
    gate, heads, width = attention.gate, 4, 48
    hidden, patches, control = torch.randn(2, 5, 48), torch.randn(2, 7, 32), torch.randn(2, 3, 48)
    ours, _ = attention(hidden, encoder_hidden_states=patches, control_tokens=control)

    query, key, value = attention.query(hidden), attention.key(patches), attention.value(patches)
    scale = gate.scale if gate.scale.numel() == width else gate.scale.repeat_interleave(width // heads)
    normed = gate.norm(control)

    def wide(numbers):
        return numbers if numbers.shape[-1] == width else numbers.repeat_interleave(width // heads, -1)

    def attend(key, value):
        found = torch.zeros(2, 5, width)
        for sample in range(2):
            for head in range(heads):
                part = slice(head * 12, head * 12 + 12)
                scores = query[sample, :, part] @ key[sample, :, part].T / 12**0.5
                found[sample, :, part] = scores.softmax(-1) @ value[sample, :, part]
        return found

    if kind == "kv":
        expected = attend(key, value) + scale * attend(gate.key(normed), gate.value(normed))
    else:
        weights = (normed @ gate.query / 48**0.5).softmax(-1)
        pooled = (weights[..., None] * normed).sum(1)
        numbers = gate.project(pooled).chunk(3 if kind == "film" else 2, -1)
        first, second = (scale * wide(one.tanh()) for one in numbers[:2])
        if kind == "film":
            expected = attend(
                key * (1 + first)[:, None], value * (1 + second)[:, None] + (scale * wide(numbers[2]))[:, None]
            )
        else:
            first, second = (2 / (1 + (-scale * wide(one)).exp()) for one in numbers)
            expected = attend(key * first[:, None], value * second[:, None])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_shift_of_all_keys_would_do_nothing():
    """Why film has none: softmax takes away what is added to every score of a query."""
    model, _ = build("film")
    attention = model.blip2.qformer.encoder.layer[0].crossattention.attention
    hidden, patches, control = torch.randn(2, 5, 48), torch.randn(2, 7, 32), torch.randn(2, 3, 48)
    before, _ = attention(hidden, encoder_hidden_states=patches, control_tokens=control)
    with torch.no_grad():
        attention.key.bias += torch.randn(48)
    after, _ = attention(hidden, encoder_hidden_states=patches, control_tokens=control)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("kind, per_head", KINDS)
def test_gradients_reach_every_gate_and_nothing_that_is_frozen(kind, per_head):
    model, _ = build(kind, per_head, lora={"rank": 2, "alpha": 4, "dropout": 0.0})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(4):  # a product of zero and something needs a step before both move
        output = run(model, batch_of(model))
        (output.logits.float().square().mean() + output.style_logits.square().mean()).backward()
        for gate in model.gates:
            assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in gate.parameters())
        optimizer.step()
        optimizer.zero_grad()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == learning
    assert not [name for name in learning if "vision_model" in name or "language_model" in name]
    assert len(model.gates) == 2 and any(".lora_A." in name for name in learning)
    assert not any(".backbone." in name or ".qformer.layernorm" in name for name in learning)


def test_frozen_parts_stay_in_eval_mode():
    model, _ = build("film", lora={"rank": 2, "alpha": 4, "dropout": 0.5})
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert not any(mode for name, mode in modes.items() if name.startswith(("blip2.vision", "blip2.language")))
    assert not any(mode for name, mode in modes.items() if name.startswith("efficientnet.backbone"))
    assert modes["mapper"] and modes["blip2.qformer.encoder.layer.0.crossattention.attention.gate"]
    assert modes["blip2.qformer.encoder.layer.0.crossattention.attention.key.lora_dropout.default"]
    assert not modes["blip2.qformer.encoder.layer.0.attention"]
    trained, _ = build("film", trained="all")
    trained.train()
    assert trained.blip2.vision_model.training and not trained.efficientnet.backbone.training


@pytest.mark.parametrize("trained", ["gates", "qformer", "all"])
def test_trainable_parts_follow_the_setting(trained):
    model, _ = build("gate", trained=trained)
    assert all(one.requires_grad for one in model.mapper.parameters())
    assert not any(one.requires_grad for one in model.efficientnet.backbone.parameters())
    assert model.blip2.query_tokens.requires_grad == (trained != "gates")
    assert model.blip2.qformer.layernorm.weight.requires_grad == (trained != "gates")
    assert model.blip2.vision_model.post_layernorm.weight.requires_grad == (trained == "all")


def test_the_mapper_does_not_see_the_answer():
    model, _ = build("film")
    torch.manual_seed(5)
    for parameter in model.mapper.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    one = run(model, batch_of(model, answers=("Noto", "two black cats"))).control
    other = run(model, batch_of(model, answers=("two black two black cats", "Noto"))).control
    assert torch.equal(one, other)
    asked = batch_of(model)
    asked["question_ids"] = asked["question_ids"].flip(0)
    asked["question_mask"] = asked["question_mask"].flip(0)
    assert not torch.allclose(run(model, asked).control, one)


def test_the_mapper_does_not_train_the_embeddings_of_words():
    model, _ = build("film", trained="all")
    batch = batch_of(model)
    pooled = model.features(batch["image"]).pooled
    model.control_tokens(pooled, batch["question_ids"], batch["question_mask"]).sum().backward()
    assert model.blip2.language_model.get_input_embeddings().weight.grad is None
    assert model.mapper.words[1].weight.grad.abs().sum() > 0


def test_padding_of_the_question_changes_nothing():
    model, _ = build("film")
    batch = batch_of(model)
    longer = dict(batch)
    longer["question_ids"] = torch.nn.functional.pad(batch["question_ids"], (0, 4), value=7)
    longer["question_mask"] = torch.nn.functional.pad(batch["question_mask"], (0, 4))
    torch.testing.assert_close(run(model, batch).control, run(model, longer).control)


def test_a_wrong_number_of_image_tokens_is_an_error():
    model, _ = build("film")
    batch = batch_of(model)
    batch["input_ids"][1, 0] = batch["input_ids"][1, -1]
    with pytest.raises(ValueError, match="9 placeholders of id 2 for 2 images of 10 tokens"):
        run(model, batch)
    with pytest.raises(ValueError, match=r"this model reads \(B, 3, 32, 32\)"):
        run(model, {**batch_of(model), "image": torch.zeros(2, 3, 30, 32)})


def test_features_given_equal_features_computed():
    model, _ = build("film")
    batch = batch_of(model)
    image = batch.pop("image")
    with torch.no_grad():
        features = model.features(image)
        assert isinstance(features, TowerFeatures)
        assert torch.equal(
            run(model, {**batch, "features": features}).logits, run(model, {**batch, "image": image}).logits
        )


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_in_a_batch_equal_answers_alone(beams):
    model, plain = build("kv")
    torch.manual_seed(8)
    for parameter in [*model.parameters()]:
        torch.nn.init.normal_(parameter, std=0.15)
    images = batch_of(model)["image"]
    questions = ["How many?", "In which style is this drawn, and how many cats are black?"]
    together = model.predict_answers(images, questions, num_beams=beams)
    alone = [model.predict_answers(images[i : i + 1], [questions[i]], num_beams=beams)[0] for i in range(2)]
    assert together == alone and any(together)
    assert len(model.generate(images, ["", ""], max_new_tokens=3)) == 2  # captions
    with pytest.raises(ValueError, match="2 images, 1 questions"):
        model.generate(images, ["How many?"])


def test_generating_equals_transformers():
    model, plain = build("film")
    image = batch_of(model)["image"][:1]
    rows = model.prompts.collate([model.prompts.encode("How many?")], side="left")
    expected = plain.generate(
        pixel_values=model.normalise(image),
        input_ids=rows["input_ids"],
        attention_mask=rows["attention_mask"],
        num_beams=2,
        max_new_tokens=6,
        do_sample=False,
        min_new_tokens=1,
        pad_token_id=model.prompts.pad,
        eos_token_id=[model.prompts.newline, model.prompts.tokenizer.eos_token_id],
    )
    expected = model.prompts.decode(expected[:, rows["input_ids"].shape[1] :])
    assert model.generate(image, ["How many?"], num_beams=2, max_new_tokens=6) == expected


def test_a_model_from_scratch_has_normal_weights():
    model, plain = build("film")
    assert isinstance(plain, Blip2ForConditionalGeneration)
    assert 0.01 < plain.vision_model.encoder.layers[0].mlp.fc1.weight.std() < 0.03
    assert 0.01 < plain.vision_model.embeddings.position_embedding.std() < 0.03
    assert 0.015 < plain.query_tokens.std() < 0.025


def test_mistakes_in_building():
    with pytest.raises(ValueError, match="--model.gating.type fim: expected none, film, gate, kv"):
        build("fim")
    with pytest.raises(ValueError, match="--model.train some: expected gates, qformer, all"):
        build("film", trained="some")
    with pytest.raises(ValueError, match="positive integer"):
        build("film", lora={"rank": 0, "alpha": 1, "dropout": 0.0})
