"""Chat prompts and images as token ids, the same for inference and training, for every processor of transformers.

conversation -> chat template -> text with one placeholder an image -> ids, the image's run in place of its placeholder

A processor is called for each image once, with the placeholder alone as its text: it returns the run of tokens that
stands for the image (576 times <image> in LLaVA 1.5, more with tiles, <img>...</img> in InternVL) and the pixels.
Runs and placeholders are special tokens, so the words around either are tokenised alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from common.text.control_words import ControlWords
from common.text.conversations import IMAGE
from llava.config import VICUNA_SYSTEM

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
TEXT = "some text"  # for trial prompts


class EncodedImages(NamedTuple):
    """I images as a processor returns them."""

    runs: list[list[int]]  # token ids that stand for each image
    inputs: dict[str, torch.Tensor]  # pixel_values and what belongs to them, as the model's forward takes them


def encode_images(processor: ProcessorMixin, images: list[Image.Image]) -> EncodedImages:
    """RGB images -> their runs of tokens and their pixels."""
    placeholder = processor.image_token
    bare = processor.tokenizer(placeholder)["input_ids"]  # with the tokens that begin and end every text
    start = bare.index(placeholder_id(processor))
    num_after = len(bare) - start - 1
    encoded = processor(images=images, text=[placeholder] * len(images), padding=True, return_tensors="pt")
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"])]
    runs = [row[start : len(row) - num_after] for row in rows]
    return EncodedImages(runs, {name: value for name, value in encoded.items() if name not in TEXT_INPUTS})


def placeholder_id(processor: ProcessorMixin) -> int:
    return processor.tokenizer.convert_tokens_to_ids(processor.image_token)


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokenizers without a padding token pad with the token that ends a text; the mask hides it."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


class ChatFormatter:
    """Chat prompts of one model. system_prompt: see SYSTEM_PROMPT in config.py.

    Texts may hold the tokenizer's control words: they stay text. ValueError for what cannot be told from a turn.
    """

    def __init__(self, processor: ProcessorMixin, system_prompt: str = "auto"):
        self.processor = processor
        template = processor.chat_template or processor.tokenizer.chat_template
        self.control_words = ControlWords(processor.tokenizer, str(template), processor.image_token)
        self.system = "" if system_prompt == "auto" else system_prompt
        if system_prompt == "auto" and self.prompt("x").strip().endswith("ASSISTANT:"):
            self.system = VICUNA_SYSTEM
        self.control_words.find_turn_words(
            lambda texts: self.render([message(role, text) for role, text in zip(("user", "assistant") * 2, texts)])
        )
        reversed_parts = message("user", TEXT, images=1)["content"][::-1]
        rendered = self.render([{"role": "user", "content": reversed_parts}])
        self.keeps_order = processor.image_token in rendered.partition(TEXT)[2]

    def prompt(self, text: str) -> str:
        """A question about one image, up to where the model's answer begins."""
        return self.render([message("user", text, images=1)], add_generation_prompt=True)

    def begin_answer(self, prompt: str, answer: str = "") -> str:
        """A prompt and the first words of its answer, joined as the chat template joins them."""
        question, marker = message("user", "x", images=1), "ANSWER"
        conversation = self.render([question, message("assistant", marker)])
        opening = conversation[len(self.prompt("x")) : conversation.index(marker)]
        return prompt + opening + self.control_words.hide(answer)[0]

    def render(self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool = False) -> str:
        """A system message takes the place of system_prompt. add_generation_prompt: end with the opening of the
        assistant's turn. Control words in the texts are stand-ins, which `encode` knows."""
        if messages[0]["role"] != "system":
            messages = [message("system", self.system), *messages]
        if not messages[0]["content"][-1]["text"]:
            messages = messages[1:]
        return self.processor.apply_chat_template(
            [{**turn, "content": self._hide(turn["content"])} for turn in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )

    def split(self, prompt: str) -> tuple[list[int], list[int]]:
        """A prompt about one image -> ids up to its placeholder, which are the same for all prompts, and the others."""
        ids = self.encode(prompt)["input_ids"]
        end = ids.index(placeholder_id(self.processor)) + 1
        return ids[:end], ids[end:]

    def encode(self, text: str) -> dict[str, Any]:
        """Rendered text -> input_ids, with one placeholder an image, and offset_mapping of a fast tokenizer."""
        start = self.processor.tokenizer.bos_token
        return self.control_words.encode(text, add_special_tokens=not (start and text.startswith(start)))

    def question(self, text: str) -> dict[str, Any]:
        """A question with one <image> for each of its images -> a message, with the images where they stand.

        For a template that puts images first, whatever the order, all text follows them.
        """
        pieces = text.strip().split(IMAGE)
        if not self.keeps_order:
            return message("user", "".join(pieces).strip(), len(pieces) - 1)
        content = message("user", pieces[0])["content"]
        for piece in pieces[1:]:
            content += message("user", piece.removeprefix("\n"), images=1)["content"]
        content = [part for part in content if part.get("text") != ""]
        return {"role": "user", "content": content}

    def _hide(self, content: list[dict[str, Any]]) -> list[dict[str, Any]]:
        texts = iter(self.control_words.hide(*(part["text"] for part in content if part["type"] == "text")))
        return [{**part, "text": next(texts)} if part["type"] == "text" else part for part in content]


def message(role: str, text: str, images: int = 0) -> dict[str, Any]:
    """One turn as chat templates take it, images first."""
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}
