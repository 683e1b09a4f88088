"""multimodal_utils against slow loops and against transformers on shared weights."""

import pytest
import torch
from tiny.tensors import double
from torch import nn

from multimodal_utils import (
    build_projector,
    create_attention_mask_from_embed,
    drop_tokens,
    mask_tokens,
    pixel_shuffle,
    project_pooled_embed,
    project_sequence_embed,
)


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
    with pytest.raises(ValueError, match=r"embed \(2, 3, 8\): the projector takes \(..., 16\); give it vision_dim=8"):
        project_sequence_embed(torch.zeros(2, 3, 8), projector)
    with pytest.raises(ValueError, match=r"\(2, 16\) is torch.int64: expected floating point"):
        project_pooled_embed(torch.zeros(2, 16, dtype=torch.int64), projector)
    with pytest.raises(ValueError, match="projector 'mlp9': expected one of linear, mlp2x_gelu, internvl"):
        build_projector("mlp9", 1, 1)


def test_only_a_known_first_layer_is_held_against_the_width():
    class Unordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(6, 6), nn.Linear(8, 6)

        def forward(self, vectors):
            return self.last(self.first(vectors))

    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6, 8, dtype=torch.int8), requires_grad=False)

        def forward(self, vectors):
            return vectors @ self.weight.T.to(vectors)

    pooled = torch.full((2, 8), 0.5)
    for projector in (Unordered(), nn.LazyLinear(6), nn.Sequential(nn.Dropout(), nn.Linear(8, 6))):
        assert project_pooled_embed(pooled, projector).shape == (2, 6)
    assert project_pooled_embed(pooled, nn.Identity()) is pooled
    assert (project_pooled_embed(pooled, Quantised()) == 4).all()  # not cut to whole numbers


def test_attention_masks():
    embed = torch.zeros(3, 4, 2)
    lengths = create_attention_mask_from_embed(embed, lengths=torch.tensor([0, 2, 4]))
    assert lengths.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert torch.equal(create_attention_mask_from_embed(embed, lengths=[0, 2, 4]), lengths)
    given_mask = create_attention_mask_from_embed(embed, mask=lengths.bool())
    assert torch.equal(given_mask, lengths) and given_mask.dtype == torch.int64
    for arguments, words in (
        ({"lengths": torch.tensor([1, 2, 5])}, r"lengths \[1, 2, 5\]: expected 0 to 4 tokens, as embed \(3, 4, 2\)"),
        ({"lengths": torch.tensor([1, -2, 3])}, r"lengths \[1, -2, 3\]: expected 0 to 4"),
        ({"lengths": torch.tensor([1])}, r"lengths \(1,\): expected \(3,\), as embed \(3, 4, 2\)"),
        ({"mask": torch.ones(3, 5)}, r"mask \(3, 5\): expected \(3, 4\)"),
        ({"mask": torch.full((3, 4), -1.0)}, "expected 0 and 1 only"),
        ({"mask": lengths, "lengths": torch.tensor([1, 1, 1])}, "both given"),
    ):
        with pytest.raises(ValueError, match=words):
            create_attention_mask_from_embed(embed, **arguments)
    with pytest.raises(ValueError, match=r"embed \(3, 4\): expected \(B, L, D\)"):
        create_attention_mask_from_embed(embed[..., 0])


def test_pixel_shuffle_and_projector_are_internvls():
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        ),
        text_config=Qwen2Config(
            vocab_size=32,
            hidden_size=24,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        ),
        image_token_id=5,
        image_seq_length=4,
    )
    theirs = InternVLForConditionalGeneration(config).model.eval()
    wide, grid = torch.randn(2, 4, 8, 16), torch.randn(2, 4, 4, 16)
    for factor in (2, 4):
        assert torch.equal(pixel_shuffle(wide, factor), theirs.pixel_shuffle(wide, scale_factor=1 / factor))
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
    assert torch.equal(pixel_shuffle(patches.view(2, rows, columns, width)).flatten(1, 2), found)
    half = patches.bfloat16()
    assert pixel_shuffle(half, factor, (rows, columns)).dtype == half.dtype and pixel_shuffle(half[:, :4], 1).any()
    assert torch.autograd.gradcheck(pixel_shuffle, double(1, 2, 4, 2))


@pytest.mark.parametrize(
    "shape, arguments, words",
    [
        (
            (1, 729, 2),
            {},
            "a 27 x 27 grid cannot be shuffled by 2; the nearest that can has 26 or 28 rows and 26 or 28",
        ),
        ((1, 1, 4, 2), {}, "a 1 x 4 grid cannot be shuffled by 2; the nearest that can has 2 rows and 4 columns"),
        ((1, 10, 2), {}, r"patches \(1, 10, 2\): 10 do not fill a 3 x 3 grid; remove prefix tokens"),
        ((1, 16, 2), {"grid": (2, 4)}, r"patches \(1, 16, 2\): 16 do not fill a 2 x 4 grid"),
        ((1, 16), {}, r"patches \(1, 16\): expected \(B, N, V\)"),
        ((1, 4, 4, 2), {"grid": (4, 4)}, r"patches \(1, 4, 4, 2\): expected \(B, N, V\), with grid"),
        ((1, 16, 2), {"factor": 0.5}, "downsample_ratio 0.5 is factor 2"),
    ],
)
def test_pixel_shuffle_refuses(shape, arguments, words):
    with pytest.raises(ValueError, match=words):
        pixel_shuffle(torch.zeros(shape), **arguments)


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


@pytest.mark.parametrize("ratio, count, stay", [(0.75, 256, 64), (0.75, 10, 3), (0.7, 10, 3), (0.999, 3, 1), (0, 5, 5)])
def test_the_rule_of_vitp_in_every_mode(ratio, count, stay):
    tokens = torch.randn(2, count, 3)
    for mode in ("zero", "drop", "token"):
        result = mask_tokens(tokens, ratio, mode, mask_token=torch.ones(3) if mode == "token" else None)
        assert (result.kept.sum(1) == stay).all() and result.tokens.shape[1] == (stay if mode == "drop" else count)


def test_what_is_hidden_leaves_no_trace_in_padding():
    def drop(tokens):
        return mask_tokens(tokens, 0.5, "drop", torch.Generator().manual_seed(1), prob=0.5)

    tokens = torch.randn(9, 4, 2)
    hidden = drop(tokens).kept == 0
    assert hidden.any() and drop(tokens).mask.min() == 0
    broken = tokens.masked_fill(hidden[..., None], torch.nan).requires_grad_()
    result = drop(broken).tokens
    assert torch.equal(result, drop(tokens).tokens)
    assert (drop(tokens).positions[drop(tokens).mask == 0] == 0).all()
    result.square().sum().backward()
    assert broken.grad.isfinite().all() and not broken.grad[hidden].any()


def test_dropped_tokens_and_what_belongs_to_them():
    tokens = torch.arange(12.0).view(2, 3, 2).requires_grad_()
    kept = torch.tensor([[True, False, True], [False, True, False]])
    shorter = drop_tokens(tokens, kept)
    assert shorter.positions.tolist() == [[0, 2], [1, 0]] and shorter.mask.tolist() == [[1, 1], [1, 0]]
    assert shorter.tokens.tolist() == [[[0, 1], [4, 5]], [[8, 9], [0, 0]]]
    shorter.tokens.sum().backward()
    assert torch.equal(tokens.grad[..., 0] > 0, kept)
    with pytest.raises(ValueError, match="kept"):
        drop_tokens(tokens, kept.long())


def test_masking_keeps_the_dtype_and_trains_the_mask_token():
    tokens, token = torch.randn(2, 8, 3, dtype=torch.bfloat16), nn.Parameter(torch.randn(3))
    for mode in ("zero", "drop", "token"):
        result = mask_tokens(tokens, 0.5, mode, mask_token=token if mode == "token" else None)
        assert result.tokens.dtype == torch.bfloat16
        assert all(part.dtype == torch.int64 for part in result[1:])
    result.tokens.float().sum().backward()
    assert (token.grad == 8).all()  # two samples hide four tokens each

    def token_mode(tokens, token):
        return mask_tokens(tokens, 0.5, "token", torch.Generator().manual_seed(0), mask_token=token).tokens

    assert torch.autograd.gradcheck(token_mode, (double(2, 4, 2), double(2)))


def test_masking_is_repeatable_per_generator():
    tokens, state = torch.randn(4, 30, 2), torch.random.get_rng_state()
    draws = [mask_tokens(tokens, 0.5, generator=torch.Generator().manual_seed(seed)).kept for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    modes = [mask_tokens(tokens, 0.5, mode, torch.Generator().manual_seed(3)) for mode in ("zero", "drop")]
    assert torch.equal(modes[0].kept, modes[1].kept)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"ratio": 1.0}, r"ratio 1.0 must lie in \[0, 1\)"),
        ({"ratio": 0.5, "prob": 2}, "prob 2"),
        ({"ratio": 0.5, "mode": "blur"}, "mode 'blur': expected one of zero, drop, token"),
        ({"ratio": 0.5, "mode": "token"}, r"mask_token \(2,\) belongs to mode 'token'"),
        ({"ratio": 0.5, "mask_token": torch.zeros(2)}, "mode is 'zero'"),
        (
            {"ratio": 0.5, "mode": "token", "mask_token": torch.zeros(4, 2)},
            r"mask_token \(4, 2\): expected \(2,\), as tok",
        ),
    ],
)
def test_masking_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        mask_tokens(torch.zeros(1, 4, 2), **arguments)
    with pytest.raises(ValueError, match=r"tokens \(4, 2\): expected \(B, N, D\)"):
        mask_tokens(torch.zeros(4, 2), 0.5)
