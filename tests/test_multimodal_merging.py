"""multimodal_utils: merging image embeddings into text, by slow loops and as transformers' LLaVA does it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny.tensors import double

from multimodal_utils import build_projector, merge_image_tokens, project_pooled_embed, project_sequence_embed

IMAGE = 99


@pytest.fixture(scope="module")
def llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
            ),
            text_config=LlamaConfig(
                vocab_size=128, hidden_size=24, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
            ),
            image_token_index=IMAGE,
            image_seq_length=16,
        )
    ).eval()


def test_the_mlp_is_llavas(llava):
    source, projector = llava.model.multi_modal_projector, build_projector("mlp2x_gelu", 16, 24)
    for ours, theirs in ((projector[0], source.linear_1), (projector[2], source.linear_2)):
        ours.load_state_dict(theirs.state_dict())
    embed = torch.randn(2, 5, 16)
    assert torch.equal(project_sequence_embed(embed, projector), source(embed))
    assert torch.equal(project_pooled_embed(embed[:, 0], projector), source(embed[:, 0]))


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


def test_merging_is_llavas_when_every_token_has_a_placeholder(llava):
    ids = torch.tensor([[1, 2] + [IMAGE] * 16 + [3, 4], [5] + [IMAGE] * 16 + [6, 7, 8]])
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = llava.model.get_image_features(pixels).pooler_output
        merged = merge_image_tokens(llava.get_input_embeddings()(ids), ids, features, IMAGE)
        scattered = llava.get_input_embeddings()(ids).masked_scatter((ids == IMAGE)[..., None], torch.cat(features))
        ours = llava(inputs_embeds=merged.embeds, attention_mask=merged.attention_mask).logits
        theirs = llava(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).logits
        one = torch.tensor([[1, 2, IMAGE, 3, 4], [5, IMAGE, 6, 7, 8]])
        short = merge_image_tokens(llava.get_input_embeddings()(one), one, features, IMAGE)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(merged.embeds, scattered)
    assert torch.equal(short.embeds, merged.embeds) and merged.labels is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_merging_both_conventions_with_several_images_and_a_text_only_sample(side):
    images = [torch.full((2, 3), 10.0), torch.full((1, 3), 20.0), torch.full((3, 3), 30.0)]
    whole = torch.tensor([[1, IMAGE, IMAGE, 2], [3, 4, 0, 0], [IMAGE, 5, 0, 0]])
    every = torch.tensor([[1, IMAGE, IMAGE, IMAGE, 2], [3, 4, 0, 0, 0], [IMAGE, IMAGE, IMAGE, 5, 0]])
    found = []
    for ids in (whole, every):
        embeds = ids[..., None].expand(-1, -1, 3).bfloat16()
        result = merge_image_tokens(embeds, ids, images, IMAGE, ids != 0, ids, side)
        assert result.embeds.dtype == torch.bfloat16 and result.position_ids.dtype == torch.int64
        found.append([result.embeds[..., 0].long().tolist(), *(part.tolist() for part in result[1:])])
    rows = [[1, 10, 10, 20, 2], [3, 4], [30, 30, 30, 5]]
    labels = [[1, -100, -100, -100, 2], [3, 4], [-100, -100, -100, 5]]

    def padded(rows, value):
        return [[value] * (5 - len(r)) + r if side == "left" else r + [value] * (5 - len(r)) for r in rows]

    ones, places = [[1] * len(row) for row in rows], [list(range(len(row))) for row in rows]
    assert found == [[padded(rows, 0), padded(ones, 0), padded(labels, -100), padded(places, 0)]] * 2


def test_merging_without_images_is_the_text():
    embeds, ids = torch.randn(2, 3, 4), torch.tensor([[1, 2, 3], [4, 5, 6]])
    for images in ([], torch.zeros(0, 5, 4)):
        result = merge_image_tokens(embeds, ids, images, IMAGE, labels=ids)
        assert torch.equal(result.embeds, embeds) and torch.equal(result.labels, ids) and result.attention_mask.all()


def test_merging_takes_image_embeds_as_a_tensor():
    ids = torch.tensor([[1, IMAGE], [IMAGE, 2]])
    text, images = torch.randn(2, 2, 4), torch.randn(2, 3, 4)
    assert torch.equal(*(merge_image_tokens(text, ids, given, IMAGE).embeds for given in (images, list(images))))


def test_merging_passes_gradients_to_text_and_images():
    ids, mask = torch.tensor([[1, IMAGE, 2], [IMAGE, 3, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])

    def merged(text, first, second):
        return merge_image_tokens(text, ids, [first, second], IMAGE, mask).embeds

    text, first, second = double(2, 3, 2), double(2, 2), double(3, 2)
    assert torch.autograd.gradcheck(merged, (text, first, second))
    merged(text, first, second).sum().backward()
    assert torch.equal(text.grad.any(2), (mask == 1) & (ids != IMAGE)) and first.grad.all() and second.grad.all()


@pytest.mark.parametrize(
    "images, arguments, words",
    [
        (torch.zeros(3, 2, 3), {}, "2 placeholders of id 99 for 3 images of 6 tokens together; expected one per image"),
        (torch.zeros(1, 3, 3), {}, "2 placeholders of id 99 for 1 images of 3 tokens together"),
        (
            torch.zeros(2, 2, 3),
            {"attention_mask": torch.tensor([[1, 1, 0, 0]])},
            "1 placeholders of id 99 for 2 images",
        ),
        (torch.zeros(2, 2, 5), {}, r"image_embeds holds \(2, 5\): expected a list of \(N, 3\), N > 0, one per image"),
        (torch.zeros(2, 3), {}, r"image_embeds holds \(3,\): expected a list of \(N, 3\)"),
        ([torch.zeros(2, 3), torch.zeros(0, 3)], {}, r"image_embeds holds \(0, 3\)"),
        (torch.zeros(2, 2, 3), {"labels": torch.zeros(1, 3)}, r"labels \(1, 3\): expected \(1, 4\), as text_embeds"),
        (torch.zeros(2, 2, 3), {"input_ids": torch.zeros(4)}, r"input_ids \(4,\): expected \(1, 4\)"),
        (torch.zeros(2, 2, 3), {"text_embeds": torch.zeros(4, 3)}, r"embed \(4, 3\): expected \(B, L, D\)"),
        (torch.zeros(2, 2, 3), {"attention_mask": torch.ones(1, 5)}, r"mask \(1, 5\): expected \(1, 4\)"),
        (torch.zeros(2, 2, 3), {"attention_mask": torch.full((1, 4), -1e9)}, "expected 0 and 1 only"),
        (torch.zeros(2, 2, 3), {"padding_side": "up"}, "padding_side 'up': expected left or right"),
    ],
)
def test_merging_refuses_what_does_not_fit(images, arguments, words):
    given = {"text_embeds": torch.zeros(1, 4, 3), "input_ids": torch.tensor([[1, IMAGE, IMAGE, 2]]), **arguments}
    with pytest.raises(ValueError, match=words):
        merge_image_tokens(image_embeds=images, image_token_id=IMAGE, **given)


def test_merging_refuses_an_image_across_two_samples():
    ids = torch.tensor(
        [[1, IMAGE, IMAGE, IMAGE], [1, IMAGE, 2, 3]]
    )  # four placeholders, as two images of two have tokens
    with pytest.raises(ValueError, match=r"sample 0 holds 3 placeholders of id 99, not .* tokens: \[2, 2\]"):
        merge_image_tokens(torch.zeros(2, 4, 3), ids, torch.ones(2, 2, 3), IMAGE)
