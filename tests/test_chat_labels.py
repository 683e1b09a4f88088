"""Labels of rendered conversations, and rows padded to one length."""

import pytest
import torch

from common.models.tokenizer import train_tokenizer
from common.text.chat_labels import IGNORED, LabelledTokens, label_turns, splice_images
from common.text.padding import pad

MESSAGES = [
    {"role": "user", "content": "How many stars are there?"},
    {"role": "assistant", "content": "three"},
    {"role": "user", "content": "图中？"},
    {"role": "assistant", "content": "三颗。"},
]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [message["content"] for message in MESSAGES] * 5
    return train_tokenizer(texts, 300, "<pad>", "</s>", extra_special_tokens=["<image>"])


def labels_of(tokenizer, end, end_tokens=()):
    """The labelled text of MESSAGES in a template that writes `end` behind an answer."""

    def render(messages, add_generation_prompt):
        turns = [
            f"USER: {message['content']} " if message["role"] == "user" else f"BOT: {message['content']}{end}"
            for message in messages
        ]
        return "".join(turns) + ("BOT:" if add_generation_prompt else "")

    tokens, _ = label_turns(
        MESSAGES, render, lambda text: tokenizer(text, return_offsets_mapping=True), end_tokens=end_tokens
    )
    assert all(label in (token, IGNORED) for token, label in zip(*tokens))
    return tokenizer.decode([label for label in tokens.labels if label != IGNORED])


def test_answers_and_their_ends_alone_are_labelled(tokenizer):
    assert labels_of(tokenizer, "</s>\n") == " three</s> 三颗。</s>"
    assert labels_of(tokenizer, "</s>\n", ["</s>"]) == " three</s> 三颗。</s>"
    assert labels_of(tokenizer, " ") == " three 三颗。"
    assert labels_of(tokenizer, " ", ["</s>"]) == " three</s> 三颗。</s>"  # appended where the template has none
    assert labels_of(tokenizer, "</s> end\n", ["</s>"]) == " three</s> 三颗。</s>"


def test_images_are_spliced_without_labels():
    tokens = LabelledTokens([7, 1, 2, 7, 3], [IGNORED, IGNORED, 2, IGNORED, 3])
    spliced = splice_images(tokens, 7, [[8, 7], [9]])
    assert spliced.input_ids == [8, 7, 1, 2, 9, 3]
    assert spliced.labels == [IGNORED, IGNORED, IGNORED, 2, IGNORED, 3]
    with pytest.raises(ValueError, match="2 image placeholders for 1"):
        splice_images(tokens, 7, [[8]])


def test_padding():
    rows = [[1, 2, 3], [4], torch.tensor([5, 0])]
    right, left = pad(rows, 0), pad(rows, 9, side="left")
    assert right.values.tolist() == [[1, 2, 3], [4, 0, 0], [5, 0, 0]]
    assert right.mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]  # a real 0 is not padding
    assert left.values.tolist() == [[1, 2, 3], [9, 9, 4], [9, 5, 0]]
    assert left.mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert right.values.dtype == right.mask.dtype == torch.int64


def test_small_tokenizers(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<image>"]) == [0, 1, 2]
    assert tokenizer.decode(tokenizer("any テキスト 123").input_ids) == "any テキスト 123"
    digits = train_tokenizer(["123 123 123"] * 9, 300, "<pad>", "</s>", "<s>", single_digits=True)
    assert digits.convert_ids_to_tokens(digits("123").input_ids) == ["<s>", "1", "2", "3"]
