"""multimodal_utils against slow loops and against transformers on shared weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multimodal_utils import (
    build_projector,
    create_attention_mask_from_embed,
    mask_tokens,
    merge_image_tokens,
    pixel_shuffle,
    project_pooled_embed,
    project_sequence_embed,
)  # fmt: skip

IMAGE = 99


def test_the_snippet_of_the_guide():
    vision_embed, llm_projector = torch.randn(2, 5, 8), nn.Linear(8, 12)
    projected_vision_embed = project_sequence_embed(vision_embed, llm_projector)
    vision_mask = create_attention_mask_from_embed(projected_vision_embed)
    assert projected_vision_embed.shape == (2, 5, 12)
    assert vision_mask.shape == (2, 5) and vision_mask.dtype == torch.int64 and vision_mask.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_projection_keeps_the_dtype_and_the_gradient(dtype):
    pooled = torch.randn(3, 8, dtype=dtype, requires_grad=True)
    result = project_pooled_embed(pooled, build_projector("mlp2x_gelu", 8, 6))
    result.float().sum().backward()
    assert result.shape == (3, 6) and result.dtype == dtype == pooled.grad.dtype and pooled.grad.any()


def test_projection_refuses_wrong_shapes():
    projector = build_projector("internvl", 4, 6)
    with pytest.raises(ValueError, match=r"embed \(2, 8\): expected \(B, L, V\)"):
        project_sequence_embed(torch.zeros(2, 8), projector)
    with pytest.raises(ValueError, match=r"pooled \(2, 3, 8\): expected \(B, V\)"):
        project_pooled_embed(torch.zeros(2, 3, 8), projector)
    with pytest.raises(ValueError, match=r"embed \(2, 3, 8\): the projector takes vectors of 16, not 8"):
        project_sequence_embed(torch.zeros(2, 3, 8), projector)
    with pytest.raises(ValueError, match="projector 'mlp9': expected one of linear, mlp2x_gelu, internvl"):
        build_projector("mlp9", 1, 1)


def test_attention_masks():
    embed = torch.zeros(3, 4, 2)
    lengths = create_attention_mask_from_embed(embed, lengths=torch.tensor([0, 2, 4]))
    assert lengths.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    given_mask = create_attention_mask_from_embed(embed, mask=lengths.bool())
    assert torch.equal(given_mask, lengths) and given_mask.dtype == torch.int64
    for arguments, words in (
        ({"lengths": torch.tensor([1, 2, 5])}, r"lengths \[1, 2, 5\]: expected 3 numbers from 0 to 4"),
        ({"lengths": torch.tensor([1])}, r"expected 3 numbers"),
        ({"mask": torch.ones(3, 5)}, r"mask \(3, 5\): expected \(3, 4\)"),
        ({"mask": torch.full((3, 4), -1.0)}, "expected 0 and 1 only"),
        ({"mask": lengths, "lengths": torch.tensor([1, 1, 1])}, "both given"),
    ):
        with pytest.raises(ValueError, match=words):
            create_attention_mask_from_embed(embed, **arguments)


def test_pixel_shuffle_and_projector_are_internvls():
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56,
            patch_size=14,
        ),
        text_config=Qwen2Config(
            vocab_size=32, hidden_size=24, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2,
        ),
        image_token_id=5, image_seq_length=4,
    )  # fmt: skip
    theirs = InternVLForConditionalGeneration(config).model.eval()
    grid = torch.randn(2, 4, 4, 16)
    expected = theirs.pixel_shuffle(grid, scale_factor=0.5).flatten(1, 2)
    found = pixel_shuffle(grid.flatten(1, 2))
    assert torch.equal(found, expected)
    projector = build_projector("internvl", 16, 24)
    source = theirs.multi_modal_projector
    for ours, other in zip(
        (projector[0], projector[1], projector[3]), (source.layer_norm, source.linear_1, source.linear_2)
    ):
        ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(projector(found), source(expected))


def test_pixel_shuffle_by_a_slow_loop_on_a_wide_grid():
    rows, columns, factor, width = 4, 6, 2, 3
    patches = torch.randn(2, rows * columns, width)
    found = pixel_shuffle(patches, factor, grid=(rows, columns))
    for row in range(rows // factor):
        for column in range(columns // factor):
            block = [patches[:, (row * factor + y) * columns + column * factor + x] for y in range(2) for x in range(2)]
            assert torch.equal(found[:, row * columns // factor + column], torch.cat(block, 1))
    with pytest.raises(ValueError, match="a 27 x 27 grid cannot be shuffled by 2; the nearest that can is 28 x 28"):
        pixel_shuffle(torch.zeros(1, 729, 2))
    with pytest.raises(ValueError, match="10 do not fill a 3 x 3 grid"):
        pixel_shuffle(torch.zeros(1, 10, 2))


@pytest.mark.parametrize("mode", ["zero", "drop", "token"])
def test_masked_share_order_and_gradient(mode):
    tokens = torch.randn(64, 20, 3, requires_grad=True)
    token = torch.full((3,), 7.0) if mode == "token" else None
    result = mask_tokens(tokens, 0.7, mode, mask_token=token, generator=torch.Generator().manual_seed(0))
    assert (result.kept.sum(1) == 6).all()  # ceil(0.3 * 20)
    share = result.kept.float().mean(0)
    assert (share - 0.3).abs().max() < 0.25 and len({tuple(row.tolist()) for row in result.kept}) == 64
    result.tokens.sum().backward()
    assert ((tokens.grad != 0).all(2) == result.kept.bool()).all()
    if mode == "drop":
        assert result.tokens.shape == (64, 6, 3) and result.mask.all()
        assert (result.positions.diff(dim=1) > 0).all()
        assert torch.equal(result.tokens, tokens.gather(1, result.positions[..., None].expand(-1, -1, 3)))
    else:
        hidden = result.tokens[result.kept == 0]
        assert (hidden == (7.0 if mode == "token" else 0)).all()
        assert torch.equal(result.tokens[result.kept == 1], tokens[result.kept == 1])


def test_masking_by_probability():
    tokens = torch.randn(2000, 8, 2)
    result = mask_tokens(tokens, 0.5, "drop", prob=0.25, generator=torch.Generator().manual_seed(1))
    full = result.kept.all(1)
    assert abs(full.float().mean() - 0.75) < 0.05 and result.tokens.shape[1] == 8
    assert torch.equal(result.tokens[full], tokens[full])
    assert (result.mask[~full].sum(1) == 4).all() and (result.tokens[~full][:, 4:] == 0).all()
    assert torch.equal(mask_tokens(tokens, 0.5, prob=0.0).tokens, tokens)


def test_masking_is_repeatable_per_generator():
    tokens = torch.randn(4, 30, 2)
    draws = [mask_tokens(tokens, 0.5, generator=torch.Generator().manual_seed(seed)).kept for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("arguments, words", [
    ({"ratio": 1.0}, r"ratio 1.0 must lie in \[0, 1\)"), ({"ratio": 0.5, "prob": 2}, "prob 2"),
    ({"ratio": 0.5, "mode": "blur"}, "mode 'blur': expected one of zero, drop, token"),
    ({"ratio": 0.5, "mode": "token"}, "mask_token"),
])  # fmt: skip
def test_masking_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        mask_tokens(torch.zeros(1, 4, 2), **arguments)


def slow_merge(embeds, ids, images, mask, labels, side):
    rows, images = [], list(images)
    for b in range(len(ids)):
        row = []
        for t in range(ids.shape[1]):
            if not mask[b, t]:
                continue
            if ids[b, t] == IMAGE:
                row += [(vector, -100) for vector in images.pop(0)]
            else:
                row.append((embeds[b, t], int(labels[b, t])))
        rows.append(row)
    longest = max(map(len, rows))
    zero = torch.zeros(embeds.shape[2])
    padded = []
    for row in rows:
        padding = [(zero, -100)] * (longest - len(row))
        padded.append(padding + row if side == "left" else row + padding)
    return (
        torch.stack([torch.stack([v for v, _ in row]) for row in padded]),
        [[n for _, n in row] for row in padded],
        [len(row) for row in rows],
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["left", "right"]), st.sampled_from(["left", "right"]))
def test_merging_by_a_slow_loop(seed, side, input_side):
    generator = torch.Generator().manual_seed(seed)
    batch, length, width = 3, 7, 4
    ids = torch.randint(0, 5, (batch, length), generator=generator)
    ids[torch.rand(batch, length, generator=generator) < 0.25] = IMAGE
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    mask = mask.flip(1) if input_side == "left" else mask
    count = int(((ids == IMAGE) & (mask == 1)).sum())
    images = [
        torch.randn(int(n), width, generator=generator) for n in torch.randint(2, 5, (count,), generator=generator)
    ]
    embeds, labels = torch.randn(batch, length, width, generator=generator), torch.randint(0, 9, (batch, length))
    found = merge_image_tokens(embeds, ids, images, IMAGE, mask, labels, side)
    expected, expected_labels, real = slow_merge(embeds, ids, images, mask, labels, side)
    assert torch.equal(found.embeds, expected) and found.labels.tolist() == expected_labels
    assert found.attention_mask.sum(1).tolist() == real
    for positions, row in zip(found.position_ids, found.attention_mask):
        assert positions[row == 1].tolist() == list(range(int(row.sum()))) and (positions[row == 0] == 0).all()


def test_merging_is_llavas_when_every_token_has_a_placeholder():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=128, hidden_size=24, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ),
        image_token_index=IMAGE, image_seq_length=16,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, 2] + [IMAGE] * 16 + [3, 4], [5] + [IMAGE] * 16 + [6, 7, 8]])
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = model.model.get_image_features(pixels).pooler_output
        merged = merge_image_tokens(model.get_input_embeddings()(ids), ids, features, IMAGE)
        ours = model(inputs_embeds=merged.embeds, attention_mask=merged.attention_mask).logits
        theirs = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).logits
        one = torch.tensor([[1, 2, IMAGE, 3, 4], [5, IMAGE, 6, 7, 8]])
        short = merge_image_tokens(model.get_input_embeddings()(one), one, features, IMAGE)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(short.embeds, merged.embeds) and merged.labels is None


def test_merging_passes_gradients_to_text_and_images():
    def merged(text, image):
        ids = torch.tensor([[1, IMAGE, 2]])
        return merge_image_tokens(text, ids, [image], IMAGE).embeds

    text, image = torch.randn(1, 3, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(merged, (text.requires_grad_(), image.requires_grad_()))


def test_merging_refuses_what_does_not_fit():
    text, ids = torch.zeros(1, 4, 3), torch.tensor([[1, IMAGE, IMAGE, 2]])
    with pytest.raises(ValueError, match="2 placeholders of id 99 for 3 images of 6 tokens together"):
        merge_image_tokens(text, ids, torch.zeros(3, 2, 3), IMAGE)
    with pytest.raises(ValueError, match=r"image_embeds \(2, 5\): expected \(N, 3\)"):
        merge_image_tokens(text, ids, torch.zeros(2, 2, 5), IMAGE)
    with pytest.raises(ValueError, match=r"labels \(1, 3\): expected \(1, 4\)"):
        merge_image_tokens(text, ids, torch.zeros(2, 2, 3), IMAGE, labels=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="padding_side 'up'"):
        merge_image_tokens(text, ids, torch.zeros(2, 2, 3), IMAGE, padding_side="up")
    assert math.isclose(merge_image_tokens(text, ids, torch.ones(2, 1, 3), IMAGE).embeds.sum().item(), 6)
