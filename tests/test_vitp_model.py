"""The model: against InternVL computed by hand from its own tensors, and what masking and packing must not change."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny.vitp import CONTEXT_ID, TEXT, internvl_folder, packed, tiny_batch, tiny_model
from transformers import (
    AttentionInterface,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from vitp.checkpoint import fit_to_images, load_model
from vitp.model import VisualInstructionModel, set_drop_path
from vitp.token_masking import build_masking


def by_hand(weights, pixels, input_ids, language) -> torch.Tensor:
    """InternVL's logits from its own tensors: InternViT, pixel shuffle v2, mlp1, injection."""
    at = {name.removeprefix("vision_model."): value for name, value in weights.items()}
    patches = F.conv2d(pixels, at["embeddings.patch_embedding.weight"], at["embeddings.patch_embedding.bias"], stride=7)
    hidden = torch.cat([at["embeddings.class_embedding"].expand(len(pixels), 1, -1), patches.flatten(2).mT], dim=1)
    hidden = hidden + at["embeddings.position_embedding"]
    for layer in range(3):
        block = {
            name.split(".", 3)[3]: value for name, value in at.items() if name.startswith(f"encoder.layers.{layer}.")
        }
        normed = F.layer_norm(hidden, (32,), block["norm1.weight"], block["norm1.bias"], 1e-6)
        qkv = F.linear(normed, block["attn.qkv.weight"], block["attn.qkv.bias"])
        query, key, value = qkv.view(len(pixels), -1, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = ((query @ key.mT) * 8**-0.5).softmax(-1) @ value
        mixed = mixed.transpose(1, 2).flatten(2)
        hidden = hidden + block["ls1"] * F.linear(mixed, block["attn.proj.weight"], block["attn.proj.bias"])
        normed = F.layer_norm(hidden, (32,), block["norm2.weight"], block["norm2.bias"], 1e-6)
        inner = F.gelu(F.linear(normed, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        hidden = hidden + block["ls2"] * F.linear(inner, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    grid = hidden[:, 1:].view(-1, 4, 4, 32)
    tokens = [grid[:, row : row + 2, column : column + 2].flatten(1) for row in (0, 2) for column in (0, 2)]
    shuffled = F.layer_norm(torch.stack(tokens, 1), (128,), weights["mlp1.0.weight"], weights["mlp1.0.bias"])
    inner = F.gelu(F.linear(shuffled, weights["mlp1.1.weight"], weights["mlp1.1.bias"]))
    images = F.linear(inner, weights["mlp1.3.weight"], weights["mlp1.3.bias"])
    embeds = language.get_input_embeddings()(input_ids).clone()
    embeds[input_ids == CONTEXT_ID] = images.flatten(0, 1)
    return language(inputs_embeds=embeds).logits


@pytest.mark.parametrize("internlm2, tied", [(False, False), (False, True), (True, False)])
@torch.no_grad()
def test_internvl_layout_gives_internvls_logits(tmp_path, internlm2, tied):
    weights = internvl_folder(tmp_path, internlm2, tied)
    model = load_model(tmp_path).eval()
    model.config.image_token_id = CONTEXT_ID
    assert model.config.tie_word_embeddings == tied
    text = {**TEXT, "rope_theta": 1e6}
    language = LlamaForCausalLM(LlamaConfig(**text)) if internlm2 else Qwen2ForCausalLM(Qwen2Config(**text))
    own = {name.removeprefix("language_model."): value for name, value in weights.items() if "language_model." in name}
    language.eval().load_state_dict(own)
    batch = tiny_batch((2, 2))
    expected = by_hand(weights, batch["pixel_values"], batch["input_ids"], language)
    found = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"]).logits
    assert torch.allclose(found, expected, atol=2e-4), (found - expected).abs().max()


@torch.no_grad()
def test_saved_folder_is_transformers_own(tmp_path):
    model, batch = tiny_model().eval(), tiny_batch((2, 2))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["InternVLForConditionalGeneration"] and config["model_type"] == "internvl"
    arguments = {name: batch[name] for name in ("input_ids", "pixel_values")}
    expected = model(**arguments).logits
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert torch.equal(theirs(**arguments).logits, expected)
    assert torch.equal(load_model(tmp_path).eval()(**arguments).logits, expected)
    theirs.save_pretrained(tmp_path / "theirs")  # with the names that they give
    assert torch.equal(load_model(tmp_path / "theirs").eval()(**arguments).logits, expected)


def test_what_does_not_fit_is_refused(tmp_path):
    weights = internvl_folder(tmp_path)
    file = tmp_path / "model.safetensors"

    def refused(changed, message):
        save_file(changed, file)
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path)

    refused({name: value for name, value in weights.items() if name != "mlp1.3.bias"}, "linear_2.bias is missing")
    refused({**weights, "vision_model.extra": torch.ones(1)}, "extra is unknown")
    refused({**weights, "mlp1.3.bias": torch.ones(5)}, r"linear_2.bias is \(5,\)")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "ps_version": "v1"}))
    refused(weights, "ps_version v1")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    refused(weights, "model_type 'llava'")
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json: no such file"):
        load_model(tmp_path)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_is_transformers_loss(attention):
    model, batch = tiny_model(), tiny_batch((1, 2))
    model.set_attn_implementation(attention)
    theirs = super(VisualInstructionModel, model).forward(**batch).loss
    assert torch.allclose(model(**batch).loss, theirs, atol=1e-5)
    count = int((batch["labels"][:, 1:] != -100).sum())
    assert torch.allclose(model(**batch, num_items_in_batch=2 * count).loss, theirs / 2, atol=1e-5)
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    assert model(**nothing).loss.item() == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", [None, "guide", "paper"])
def test_packed_loss_and_gradients_equal_unpacked(attention, mode):
    model = tiny_model()
    model.set_attn_implementation(attention)
    results = []
    for batch in (tiny_batch((1, 3, 0, 2)), packed(tiny_batch((1, 3, 0, 2)))):
        model.zero_grad()
        model.masking = build_masking(mode, 1.0, None, seed=3) if mode else None
        loss = model.train()(**batch).loss
        loss.backward()
        results.append((loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    for one, other in zip(*(gradients for _, gradients in results)):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_packed_sample_does_not_see_its_neighbours():
    model = tiny_model().eval()
    batch = packed(tiny_batch((1, 2)))
    first = batch["sample_ids"][0] == 0
    only_first = {**batch, "labels": batch["labels"].masked_fill(~first, -100)}
    before = model(**only_first).loss
    changed = only_first["input_ids"].clone()
    changed[0, ~first & (changed[0] != CONTEXT_ID)] = 7
    pixels = batch["pixel_values"].clone()
    pixels[1:] = 0
    assert torch.equal(model(**{**only_first, "input_ids": changed, "pixel_values": pixels}).loss, before)
    open_to_all = {
        **only_first,
        "sample_ids": torch.zeros_like(batch["sample_ids"]),
        "labels": batch["labels"].masked_fill(first, -100),
    }
    closed = {**batch, "labels": batch["labels"].masked_fill(first, -100)}
    assert not torch.allclose(model(**open_to_all).loss, model(**closed).loss)


def varlen_reference(module, query, key, value, attention_mask, scaling, **bounds):
    """What flash attention computes from the bounds of sequences, in a loop over them."""
    assert attention_mask is None
    if "cu_seq_lens_q" not in bounds:  # the vision tower
        return F.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2), None
    batch, heads, length, width = query.shape
    key, value = (tensor.repeat_interleave(heads // tensor.shape[1], 1) for tensor in (key, value))
    query, key, value = (tensor.transpose(1, 2).reshape(-1, heads, width) for tensor in (query, key, value))
    edges = bounds["cu_seq_lens_q"].tolist()
    assert edges[0] == 0 and edges[-1] == batch * length and edges == bounds["cu_seq_lens_k"].tolist()
    assert bounds["max_length_q"] == bounds["max_length_k"] == max(b - a for a, b in zip(edges, edges[1:]))
    parts = []
    for start, end in zip(edges, edges[1:]):
        one = (tensor[start:end].transpose(0, 1)[None] for tensor in (query, key, value))
        parts.append(F.scaled_dot_product_attention(*one, is_causal=True, scale=scaling)[0].transpose(0, 1))
    return torch.cat(parts).view(batch, length, heads, width), None


@pytest.mark.parametrize("mode", [None, "paper"])
def test_flash_attention_is_told_the_same(mode):
    AttentionInterface.register("flash_by_hand", varlen_reference)
    ALL_MASK_ATTENTION_FUNCTIONS.register("flash_by_hand", lambda *_, attention_mask=None, **__: attention_mask)
    for batch in (tiny_batch((1, 3, 0)), packed(tiny_batch((1, 3, 0)))):
        losses = []
        for attention in ("sdpa", "flash_by_hand"):
            model = tiny_model()
            model.config.text_config._attn_implementation = attention  # asked for by its setter it would be imported
            model.masking = build_masking(mode, None, None, seed=3) if mode else None
            losses.append(model.train()(**batch).loss)
        assert torch.allclose(*losses, atol=1e-5)


def test_text_alone_reaches_every_weight_with_zero():
    model, batch = tiny_model().train(), tiny_batch((0, 0))
    loss = model(**batch).loss
    loss.backward()
    assert torch.equal(loss, model.eval()(**batch).loss)
    vision = [
        parameter for name, parameter in model.named_parameters() if "language" not in name and "lm_head" not in name
    ]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in vision)


def test_wrong_number_of_placeholders_is_an_error():
    batch = tiny_batch((1, 1))
    with pytest.raises(ValueError, match="8 placeholders of id 60"):
        tiny_model()(**{**batch, "pixel_values": batch["pixel_values"][:1]})


def test_drop_path():
    model = tiny_model(num_hidden_layers=2)
    tower, names = model.model.vision_tower, list(model.state_dict())
    pixels = torch.randn(8, 3, 28, 28)
    with torch.no_grad():
        plain = tower.eval()(pixels).last_hidden_state
        set_drop_path(model, 0.5)
        assert list(model.state_dict()) == names
        assert torch.equal(tower.eval()(pixels).last_hidden_state, plain)
        rates = [layer.dropout[1].drop_prob for layer in tower.encoder.layer]
        assert rates == [0, 0.5]
        torch.manual_seed(0)
        layer = tower.encoder.layer[1].train()
        hidden = torch.randn(1, 5, 32).expand(4000, -1, -1)
        branch = layer.attention(layer.layernorm_before(hidden))[0]
        dropped = (branch == 0).flatten(1).all(1)
        assert abs(float(dropped.float().mean()) - 0.5) < 4 * (0.25 / 4000) ** 0.5
        kept = layer.eval().attention(layer.layernorm_before(hidden[:1]))[0]
        assert torch.allclose(branch[~dropped], 2 * kept.expand(int((~dropped).sum()), -1, -1), atol=1e-5)
    with pytest.raises(ValueError, match="drop_path_rate"):
        set_drop_path(model, 1.0)


def test_gradient_checkpointing_gives_the_same_gradients():
    batch, gradients = tiny_batch((1, 2)), []
    for checkpointing in (False, True):
        model = tiny_model().train()
        set_drop_path(model, 0.3)
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(1)
        model(**batch).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients))


def test_image_size():
    model = tiny_model()
    table = model.model.vision_tower.embeddings.position_embeddings.detach().clone()
    assert fit_to_images(model, None) == 4 and fit_to_images(model, 28) == 4
    assert torch.equal(model.model.vision_tower.embeddings.position_embeddings, table)
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        on_the_way = model.model.vision_tower.eval()(pixels).last_hidden_state  # transformers resamples in each forward
        assert fit_to_images(model, 56) == 16
        assert torch.allclose(model.model.vision_tower(pixels).last_hidden_state, on_the_way, atol=1e-5)
    assert model.model.vision_tower.embeddings.position_embeddings.shape == (1, 65, 32)
    assert model.config.vision_config.image_size == [56, 56] and model.config.image_seq_length == 16
    for size, nearest in ((50, 56), (44, 42), (3, 14)):
        with pytest.raises(ValueError, match=f"multiple of 14; the nearest is {nearest}"):
            fit_to_images(model, size)
