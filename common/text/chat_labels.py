"""Labels of rendered conversations: the answers with the token that ends each, and -100 everywhere else.

messages -> chat template -> text with one placeholder an image -> input_ids, labels (T,)
    -> splice_images: each placeholder becomes all the tokens of its image

Works with every chat template: the places of the answers are read off by rendering the conversation up to each.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

IGNORED = -100


class LabelledTokens(NamedTuple):
    input_ids: list[int]
    labels: list[int]  # of the same length

    def cut(self, length: int) -> "LabelledTokens":
        return LabelledTokens(self.input_ids[:length], self.labels[:length])


def label_turns(
    messages: Sequence[dict[str, Any]],
    render: Callable[[Sequence[dict[str, Any]], bool], str],
    encode: Callable[[str], Any],
    end_tokens: Sequence[str] = (),
    is_trained: Sequence[bool] = (),
    control_ids: Collection[int] = (),
) -> tuple[LabelledTokens, list[int]]:
    """-> tokens, number of tokens up to the end of each turn; [] where these are not those of the turns alone.

    messages: {"role", "content"}, as `render` takes them.
    render(messages, add_generation_prompt) -> text. encode(text) -> input_ids and offset_mapping of a fast tokenizer.
    end_tokens: texts of the tokens that end an answer, the usual one first. Where the template writes none of them, as
    LLaVA 1.5's, the first is appended: a model that never sees an end never learns to stop. Without end_tokens, an
    answer ends where the template's text for it does, trailing whitespace aside.
    is_trained: of each answer, whether it has labels; by default all have.
    control_ids: of tokens that divide a text into parts which are tokenised by themselves. Where each turn begins with
    one, the tokens of the first turns are those of a conversation of these turns.
    """
    text, rendered, spans, ends = "", "", [], []
    for count, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, whole = render(messages[:count], True), render(messages[: count + 1], False)
        if not (prompt.startswith(rendered) and whole.startswith(prompt)):
            raise ValueError("the chat template rewrites earlier turns, so the places of the answers are unknown")
        answer, rest = _split_end(whole[len(prompt) :], end_tokens)
        text += prompt[len(rendered) :]
        spans.append((len(text), len(text) + len(answer)))
        text += answer + rest
        rendered = whole
        ends.append(len(text))
    if is_trained:
        spans = [span for span, trained in zip(spans, is_trained, strict=True) if trained]
    encoded = encode(text)
    ids = encoded["input_ids"]
    first, last = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
    in_answer = np.zeros(len(ids), bool)
    for start, end in spans:
        in_answer |= (start < last) & (first < end)
    labels = np.where(in_answer, ids, IGNORED).tolist()
    return LabelledTokens(ids, labels), _turn_ends(ids, first, last, ends, control_ids)


def _turn_ends(
    ids: Sequence[int], first: np.ndarray, last: np.ndarray, ends: Sequence[int], control_ids: Collection[int]
) -> list[int]:
    """first, last (T,): places of the tokens in the text. ends: of the turns in the text."""
    numbers = np.searchsorted(last, ends, "right").tolist()
    is_plain = (np.diff(first) >= 0).all() and (np.diff(last) >= 0).all()  # nothing is added at the end
    at_control = (first[at] == end and ids[at] in control_ids for at, end in zip(numbers[:-1], ends))
    return [*numbers[:-1], len(ids)] if is_plain and numbers[-1] == len(ids) and all(at_control) else []


def splice_images(tokens: LabelledTokens, placeholder_id: int, runs: Sequence[Sequence[int]]) -> LabelledTokens:
    """The k-th placeholder becomes the token ids runs[k]; no label is on them."""
    if tokens.input_ids.count(placeholder_id) != len(runs):
        raise ValueError(f"{tokens.input_ids.count(placeholder_id)} image placeholders for {len(runs)} images")
    remaining = iter(runs)
    spliced = LabelledTokens([], [])
    for token, label in zip(*tokens):
        run = next(remaining) if token == placeholder_id else None
        spliced.input_ids.extend([token] if run is None else run)
        spliced.labels.extend([label] if run is None else [IGNORED] * len(run))
    return spliced


def _split_end(segment: str, end_tokens: Sequence[str]) -> tuple[str, str]:
    """A template's text for an answer -> the text up to its end token, the text behind it."""
    end = next((end for end in end_tokens if end in segment), None)
    if end_tokens and end is None:
        return segment.rstrip() + end_tokens[0], ""
    length = segment.rindex(end) + len(end) if end else len(segment.rstrip())
    return segment[:length], segment[length:]
