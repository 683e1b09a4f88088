"""Questions and answers to token numbers, in the order that BLIP-2 was trained with.

[image] x Q  </s>  Question: {question}  Answer:  {answer} \\n
|------------ prompt: label -100 -------------|  |- learnt -|

Every piece is encoded with the space before it, so that the pieces together are what the tokenizer makes of the whole
text, and it is known which tokens are the question's and which the answer's.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

IGNORED = -100
TEMPLATE = "Question: {} Answer:"


@dataclass(frozen=True)
class Encoded:
    prompt: list[int]  # image tokens, begin, template and question
    question: list[int]  # of the question alone, for the prompt mapper
    answer: list[int]  # with its newline; empty where there is none to learn
    cut: bool  # the question or the answer was longer than max_tokens


class PromptEncoder:
    """Texts to tokens for one tokenizer. template: with one {} where the question goes."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_token: int,
        num_query_tokens: int,
        template: str = TEMPLATE,
        max_tokens: int = 48,
    ):
        if template.count("{}") != 1:
            raise ValueError(f"--data.prompt '{template}': expected {{}} once, where the question goes")
        self.tokenizer, self.max_tokens, self.template = tokenizer, max_tokens, template
        before, _, after = template.partition("{}")
        self.before, self.after = before.rstrip(), after
        self.head = [image_token] * num_query_tokens + [tokenizer.bos_token_id] + self._ids(self.before)
        self.tail = self._ids(self.after)
        newline = self._ids("\n")
        if len(newline) != 1:
            raise ValueError(f"the tokenizer makes {len(newline)} tokens of a newline; BLIP-2's answers end with one")
        self.newline: int = newline[0]
        self.pad: int = tokenizer.pad_token_id

    def encode(self, question: str, answer: str | None = None) -> Encoded:
        """question may be empty: then the prompt is the image alone, as for captions."""
        question, begin = question.strip(), len(self.head) - len(self._ids(self.before))
        asked = self._ids(f" {question}" if self.before else question)
        answered = self._ids(f" {answer.strip()}") if answer is not None else []
        cut = max(len(asked), len(answered)) > self.max_tokens
        asked, answered = asked[: self.max_tokens], answered[: self.max_tokens]
        answered += [self.newline] if answer is not None else []
        if not question:
            return Encoded(self.head[:begin], self.head[begin - 1 : begin], answered, cut)
        return Encoded([*self.head, *asked, *self.tail], asked, answered, cut)

    def collate(self, rows: list[Encoded], left: bool = False) -> dict[str, torch.Tensor]:
        """-> input_ids, attention_mask, labels (B, T), question_ids, question_mask (B, W); mask 1 = real.

        left: padding before the text, as generating needs it; for training it stands behind.
        """
        whole = [row.prompt + row.answer for row in rows]
        labels = [[IGNORED] * len(row.prompt) + row.answer for row in rows]
        batch = {
            "input_ids": pad(whole, self.pad, left),
            "attention_mask": pad([[1] * len(one) for one in whole], 0, left),
            "labels": pad(labels, IGNORED, left),
        }
        questions = [row.question for row in rows]
        batch["question_ids"] = pad(questions, self.pad)
        batch["question_mask"] = pad([[1] * len(one) for one in questions], 0)
        return batch

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """What was generated (B, T) -> the text up to the first newline."""
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip().split("\n")[0].strip() for text in texts]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids if text else []


def pad(rows: list[list[int]], value: int, left: bool = False) -> torch.Tensor:
    """Lists of numbers -> (B, longest) int64."""
    width = max(len(row) for row in rows)
    filled = ([value] * (width - len(row)) + row if left else row + [value] * (width - len(row)) for row in rows)
    return torch.tensor(list(filled), dtype=torch.int64)
