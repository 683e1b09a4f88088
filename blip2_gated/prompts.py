"""Prompts: questions and answers to token ids, in the order that BLIP-2 was trained with.

[image] x Q  </s>  Question: {question}  Answer:  {answer} \\n
|------------ prompt: label -100 -------------|  |- labels -|

Every piece is encoded with the space before it, so that the pieces together are what the tokenizer makes of the whole
text, and the tokens of question and answer are known. Control words in questions and answers ("</s>", "<image>") are
text; a line break would end an answer, so none may hold one.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from common.text.chat_labels import IGNORED
from common.text.control_words import ControlWords
from common.text.padding import pad

TEMPLATE = "Question: {} Answer:"


@dataclass(frozen=True)
class Encoded:
    prompt: list[int]  # image tokens, begin, template and question
    question: list[int]  # the question alone, for the prompt mapper
    answer: list[int]  # with its newline; empty if there is none
    truncated: bool  # the question or the answer was longer than max_tokens


class PromptEncoder:
    """Texts to tokens for one tokenizer. template: with one {} in place of the question."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_token: int,
        num_query_tokens: int,
        template: str = TEMPLATE,
        max_tokens: int = 48,
    ):
        if template.count("{}") != 1:
            raise ValueError(f"--data.prompt '{template}': expected {{}} once, in place of the question")
        self.tokenizer, self.max_tokens, self.control_words = tokenizer, max_tokens, ControlWords(tokenizer)
        before, _, after = template.partition("{}")
        self.before, self.after = before.rstrip(), after.strip()
        self.caption_prompt = [image_token] * num_query_tokens + [tokenizer.bos_token_id]
        self.head, self.tail = self.caption_prompt + self._ids(self.before), self._ids(after)
        newline = self._ids("\n")
        if len(newline) != 1:
            raise ValueError(f"the tokenizer makes {len(newline)} tokens of a newline; BLIP-2's answers end with one")
        self.newline: int = newline[0]
        self.pad: int = tokenizer.pad_token_id

    def with_template(self, template: str) -> "PromptEncoder":
        """The same with another template; '' keeps its own."""
        image_tokens = self.caption_prompt[:-1]
        if not template:
            return self
        return PromptEncoder(self.tokenizer, image_tokens[0], len(image_tokens), template, self.max_tokens)

    def encode(self, question: str, answer: str | None = None) -> Encoded:
        """An empty question makes the prompt of a caption: the image alone. A question that has the template around
        it, as in most examples of BLIP-2, is taken out of it."""
        question = question.strip()
        if question.startswith(self.before) and question.endswith(self.after):
            question = question.removeprefix(self.before).removesuffix(self.after).strip()
        question_ids = self.control_words.encode_text(f" {question}" if self.before else question)
        answer_ids = self.control_words.encode_text(f" {answer.strip()}") if answer is not None else []
        if self.newline in answer_ids:
            raise ValueError(f"{answer!r}: a line break ends an answer")
        truncated = max(len(question_ids), len(answer_ids)) > self.max_tokens
        question_ids, answer_ids = question_ids[: self.max_tokens], answer_ids[: self.max_tokens]
        answer_ids += [self.newline] if answer is not None else []
        if not question:
            return Encoded(self.caption_prompt, self.caption_prompt[-1:], answer_ids, truncated)
        return Encoded([*self.head, *question_ids, *self.tail], question_ids, answer_ids, truncated)

    def collate(
        self, rows: list[Encoded], side: str = "right", device: torch.device | str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """-> input_ids, attention_mask, labels (B, T), question_ids, question_mask (B, W); mask 1 = real.

        side: of the padding of prompt and answer; 'left' for generation.
        """
        texts = pad([row.prompt + row.answer for row in rows], self.pad, side)
        labels = pad([[IGNORED] * len(row.prompt) + row.answer for row in rows], IGNORED, side)
        questions = pad([row.question for row in rows], self.pad)
        batch = {
            "input_ids": texts.values,
            "attention_mask": texts.mask,
            "labels": labels.values,
            "question_ids": questions.values,
            "question_mask": questions.mask,
        }
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Generated tokens (B, T) -> texts up to the first newline."""
        return [
            text.strip().split("\n")[0].strip()
            for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids if text else []
