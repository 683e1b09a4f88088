"""Turns about one image that do not see each other: as many conversations, at the cost of one image.

questions about an image -> [image | question, answer | question, answer | ...] (T,) -> numbers of turns, 0 = shared
    -> attention_mask (B, 1, T, T): a turn sees the image and itself; position_ids (B, T): each begins behind the image

The loss is that of one conversation for each turn, so what an answer depends on is as in inference, where each question
comes alone. With attention between them, an earlier answer says which later texts fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from common.text.chat_labels import LabelledTokens
from common.text.conversations import IMAGE, Conversation, Turn

MODEL_TYPES = ("llava", "llava_next", "internvl")  # whose language models take masks and positions as they are given


def tokenize_apart(
    conversation: Conversation, tokenize_one: Callable[[Conversation], LabelledTokens], placeholder: int
) -> tuple[LabelledTokens, list[int]]:
    """-> tokens of the turns, each as it is alone, those up to the image once; the ends of the turns.

    tokenize_one: a conversation of one turn. placeholder: the token of the image.
    """
    if len(conversation.images) > 1 or conversation.turns[0].images != len(conversation.images):
        raise ValueError("independent turns: expected one image, in the first question, or none")
    image = f"{IMAGE}\n" * len(conversation.images)
    flags = conversation.is_trained or (True,) * len(conversation.turns)
    whole, head, ends = LabelledTokens([], []), None, []
    for (question, answer), flag in zip(conversation.turns, flags):
        turn = Turn(f"{image}{question.replace(IMAGE, '').strip()}", answer)
        ids, labels = tokenize_one(replace(conversation, turns=(turn,), is_trained=(flag,)))
        start = ids.index(placeholder) + 1 if image else 0
        if head is None:
            head = ids[:start]
            whole = LabelledTokens(head, labels[:start])
        elif ids[:start] != head:
            raise ValueError("the chat template puts words of the question before the image; turns cannot share it")
        whole = LabelledTokens(whole.input_ids + ids[start:], whole.labels + labels[start:])
        ends.append(len(whole.labels))
    return whole, ends


def number_turns(ids: Sequence[int], ends: Sequence[int], placeholder: int) -> list[int]:
    """Tokens of tokenize_apart -> for each the number of its turn from 1, and 0 up to the image."""
    numbers = np.searchsorted(ends, np.arange(len(ids)), "right") + 1
    if placeholder in ids:
        numbers[: ids.index(placeholder) + 1] = 0
    return numbers.tolist()


def separate_turns(numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """numbers (B, T) of turns, -1 = padding -> attention_mask (B, 1, T, T), True = seen; position_ids (B, T)."""
    places = torch.arange(numbers.shape[1]).expand_as(numbers)
    own = numbers[:, :, None] == numbers[:, None, :]
    seen = (own | (numbers == 0)[:, None, :]).tril()
    begins = numbers != numbers.roll(1, 1)
    starts = torch.where(begins, places, 0).cummax(1).values  # of each token's turn
    shared = (numbers == 0).sum(1, keepdim=True)
    return {"attention_mask": seen[:, None], "position_ids": places - starts + shared * (numbers != 0)}
