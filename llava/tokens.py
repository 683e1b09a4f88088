"""Words and images to token ids, the same for inference and training, for every processor of transformers.

conversation -> chat template -> text with one placeholder an image -> ids, the image's run in place of its placeholder

A processor is asked for each image once, with the placeholder alone as its text: its answer holds the run of tokens
that stands for the image (576 times <image> in LLaVA 1.5, more with tiles, <img>...</img> in InternVL) and the pixels.
Runs and placeholders are special tokens, so words on either side are tokenised alike, whichever of them is there.
"""

from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import ProcessorMixin

from llava.config import VICUNA_SYSTEM


class EncodedImages(NamedTuple):
    """I images as a processor gives them."""

    runs: list[list[int]]  # token ids that stand for each image
    inputs: dict[str, torch.Tensor]  # pixel_values and what belongs to them, as the model's forward takes them


def encode_images(processor: ProcessorMixin, images: list[Image.Image]) -> EncodedImages:
    """RGB images -> their runs of tokens and their pixels."""
    placeholder = processor.image_token
    plain = processor.tokenizer(placeholder)["input_ids"]
    place = plain.index(placeholder_id(processor))
    behind = len(plain) - place - 1
    encoded = processor(images=images, text=[placeholder] * len(images), padding=True, return_tensors="pt")
    kept = [ids[mask.bool()].tolist() for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"])]
    runs = [ids[place : len(ids) - behind] for ids in kept]
    textual = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    return EncodedImages(runs, {name: value for name, value in encoded.items() if name not in textual})


def placeholder_id(processor: ProcessorMixin) -> int:
    return processor.tokenizer.convert_tokens_to_ids(processor.image_token)


def splice(ids: list[int], placeholder: int, runs: list[list[int]]) -> list[int]:
    """Put the runs of the images, in order, in place of their placeholders."""
    if ids.count(placeholder) != len(runs):
        raise ValueError(f"{ids.count(placeholder)} image placeholders for {len(runs)} images")
    remaining = iter(runs)
    return [token for one in ids for token in (next(remaining) if one == placeholder else (one,))]


def pad(rows: list[list[int]], value: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids -> ids (R, T), mask (R, T) with 1 = real."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), value)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row, dtype=torch.int64), 1
    return ids, mask


class ChatFormatter:
    """Chat prompts of one model. system_prompt: see SYSTEM_PROMPT in config.py."""

    def __init__(self, processor: ProcessorMixin, system_prompt: str = "auto"):
        self.processor = processor
        self.system = "" if system_prompt == "auto" else system_prompt
        if system_prompt == "auto" and self.prompt("x").strip().endswith("ASSISTANT:"):
            self.system = VICUNA_SYSTEM

    def prompt(self, text: str) -> str:
        """A question about one image, up to where the model's answer begins."""
        return self.render([message("user", text, images=1)], ask=True)

    def begin(self, prompt: str, answer: str = "") -> str:
        """A prompt and the first words of its answer, joined as the chat template joins them."""
        question, mark = message("user", "x", images=1), "ANSWER"
        whole = self.render([question, message("assistant", mark)], ask=False)
        return prompt + whole[len(self.render([question], ask=True)) : whole.index(mark)] + answer

    def render(self, messages: list[dict[str, Any]], ask: bool) -> str:
        """ask: end with the opening of the assistant's turn."""
        head = [message("system", self.system)] if self.system else []
        return self.processor.apply_chat_template(head + messages, tokenize=False, add_generation_prompt=ask)

    def split(self, prompt: str) -> tuple[list[int], list[int]]:
        """A prompt about one image -> ids up to its placeholder, which all prompts have alike, ids behind it."""
        ids = self.ids(prompt)
        place = ids.index(placeholder_id(self.processor)) + 1
        return ids[:place], ids[place:]

    def ids(self, text: str) -> list[int]:
        """Rendered text -> token ids, its placeholders still single."""
        return self.encode(text)["input_ids"]

    def encode(self, text: str, **options: Any) -> dict[str, Any]:
        return self.processor.tokenizer(text, add_special_tokens=self._needs_start(text), **options)

    def _needs_start(self, text: str) -> bool:
        start = self.processor.tokenizer.bos_token
        return not (start and text.startswith(start))


def message(role: str, text: str, images: int = 0) -> dict[str, Any]:
    """One turn as chat templates take it, images first."""
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}
