"""Chat prompts and images as token ids, the same for inference and training, for every processor of transformers.

conversation -> chat template -> text with one placeholder an image -> ids, the image's run in place of its placeholder

A processor is called for each image once, with the placeholder alone as its text: it returns the run of tokens that
stands for the image (576 times <image> in LLaVA 1.5, more with tiles, <img>...</img> in InternVL) and the pixels.
Runs and placeholders begin and end with special tokens, so the words around either are tokenised alike. Text that a
processor writes around a run, as Gemma 3's newlines, belongs to the words: it is tokenised with those next to it.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from common.text.control_words import ControlWords
from common.text.conversations import IMAGE
from llava.config import VICUNA_SYSTEM

TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")  # which tokens are of an image: Gemma 3, Qwen2-VL
TEXT_INPUTS = ("input_ids", "attention_mask", *TOKEN_TYPES)
TEXT = "some text"  # for trial prompts


class EncodedImages(NamedTuple):
    """I images as a processor returns them."""

    runs: list[list[int]]  # token ids that stand for each image
    inputs: dict[str, torch.Tensor]  # pixel_values and what belongs to them, as the model's forward takes them
    types: dict[str, list[list[int]]]  # those of TOKEN_TYPES that the model takes, of each token of each run; text is 0


def encode_images(processor: ProcessorMixin, groups: Sequence[Sequence[Image.Image]]) -> EncodedImages:
    """RGB images of each conversation -> their runs of tokens and their pixels, in order.

    Together, as LLaVA-OneVision divides an image into tiles only where a conversation has no other one.
    """
    encoded, tokenizer = _call(processor, groups), processor.tokenizer
    masks = encoded["attention_mask"].bool()
    # Tokenizers of other models return types, too: zeros.
    names = ["input_ids", *(name for name in TOKEN_TYPES if name in encoded and encoded[name].any())]
    runs: dict[str, list[list[int]]] = {name: [] for name in names}
    for row, mask in enumerate(masks):
        tokens = {name: encoded[name][row, mask].tolist() for name in names}
        for run in _runs(tokens["input_ids"], tokenizer.added_tokens_decoder, tokenizer.eos_token_id):
            for name, values in tokens.items():
                runs[name].append(values[run])
    inputs = {
        name: value.float() if value.is_floating_point() else value  # Llama 4's are bf16
        for name, value in encoded.items()
        if name not in TEXT_INPUTS
    }
    return EncodedImages(runs.pop("input_ids"), inputs, runs)


def splice_types(ids: Sequence[int], placeholder: int, types: Sequence[Sequence[int]]) -> list[int]:
    """ids with one placeholder an image, the token types of each image's run -> those of all tokens."""
    remaining = iter(types)
    return [kind for token in ids for kind in (next(remaining) if token == placeholder else [0])]


def _call(processor: ProcessorMixin, groups: Sequence[Sequence[Image.Image]]) -> BatchFeature:
    texts = [processor.tokenizer.eos_token.join([processor.image_token] * len(group)) for group in groups]
    images = [list(group) for group in groups]
    return processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors="pt")


def _runs(ids: list[int], special: Container[int], separator: int) -> Iterator[slice]:
    """Places of each image's tokens, from its first special token to its last."""
    start = 0
    for end in [place for place, token in enumerate([*ids, separator]) if token == separator]:
        places = [place for place in range(start, end) if ids[place] in special]
        yield slice(places[0], places[-1] + 1)
        start = end + 1


def _frame(processor: ProcessorMixin) -> tuple[str, str]:
    """Text that a processor writes before and behind an image's special tokens."""
    tokenizer = processor.tokenizer
    ids = _call(processor, [[Image.new("RGB", (64, 64))]])["input_ids"][0].tolist()
    (run,) = _runs(ids, tokenizer.added_tokens_decoder, tokenizer.eos_token_id)
    return tokenizer.decode(ids[: run.start]), tokenizer.decode(ids[run.stop :])


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
        self.framed_image = processor.image_token.join(_frame(processor))
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
        text = self.processor.apply_chat_template(
            [{**turn, "content": self._hide(turn["content"])} for turn in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return text.replace(self.processor.image_token, self.framed_image)

    def split(self, prompt: str) -> tuple[list[int], list[int]]:
        """A prompt about one image -> ids up to its placeholder, which are the same for all prompts, and the others."""
        ids = self.encode(prompt)["input_ids"]
        end = ids.index(placeholder_id(self.processor)) + 1
        return ids[:end], ids[end:]

    def encode(self, text: str) -> dict[str, Any]:
        """Rendered text -> input_ids, with one placeholder an image, and offset_mapping of a fast tokenizer."""
        start = self.processor.tokenizer.bos_token
        adds_start = getattr(self.processor, "text_kwargs", {}).get("add_special_tokens", True)  # LFM2-VL's: False
        return self.control_words.encode(text, adds_start and not (start and text.startswith(start)))

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
