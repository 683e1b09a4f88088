"""How does a conversation become tokens, and which of them does the model learn to say?

record {"image": ..., "conversations": [...]} -> Conversation (system, turns, images)
    -> chat template, one <IMG_CONTEXT> an image -> input_ids, labels (T,)
    -> expand: an image's one placeholder becomes all its tokens

Labels are -100 but for each answer and the token that ends it. Any chat template will do: the answers' places are read
off the rendered text, by rendering the conversation up to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

IGNORED = -100
IMAGE, CONTEXT, START, END = "<image>", "<IMG_CONTEXT>", "<img>", "</img>"
INTERNVL_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
INTERNVL2_5 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + INTERNVL_SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + CONTEXT + "\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Conversation:
    turns: tuple[tuple[str, str], ...]  # (question, answer); a question holds one <image> for each image it shows
    images: tuple[str, ...] = ()  # paths as the record has them, in reading order
    system: str | None = None

    def first(self, count: int) -> "Conversation":
        """The first `count` turns, with the images that they show."""
        turns = self.turns[:count]
        shown = sum(question.count(IMAGE) for question, _ in turns)
        return replace(self, turns=turns, images=self.images[:shown])


class Tokens(NamedTuple):
    input_ids: list[int]
    labels: list[int]  # as long; IGNORED at what is not learnt


def read_conversation(record: dict) -> Conversation:
    """A JSONL record in InternVL's or LLaVA's form -> Conversation. ValueError says what is wrong with it.

    Placeholders that are absent altogether are put before the first question; otherwise there is one for every image.
    """
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        raise ValueError("no list 'conversations'")
    images = record.get("image", record.get("images")) or ()
    images = (images,) if isinstance(images, str) else images
    if not isinstance(images, list | tuple) or not all(isinstance(image, str) for image in images):
        raise ValueError("'image' is neither a path nor a list of paths")
    said = [_message(message) for message in record["conversations"]]
    system = said.pop(0)[1] if said and said[0][0] == "system" else None
    if said and said[0][0] == "assistant":  # as InternVL does: nobody has asked yet
        said = said[1:]
    if len(said) % 2:
        said.pop()  # a last question without an answer
    wanted = ["user", "assistant"] * (len(said) // 2)
    if not said or [speaker for speaker, _ in said] != wanted:
        raise ValueError("expected human and gpt by turns")
    turns = [(said[place][1], said[place + 1][1]) for place in range(0, len(said), 2)]
    if not all(answer for _, answer in turns):
        raise ValueError("an answer is empty")
    if not any(IMAGE in question for question, _ in turns):
        turns[0] = (f"{IMAGE}\n" * len(images) + turns[0][0], turns[0][1])
    shown = sum(question.count(IMAGE) for question, _ in turns)
    if shown != len(images):
        raise ValueError(f"{shown} {IMAGE} in the questions for {len(images)} images")
    return Conversation(tuple(turns), tuple(images), system)


class ChatTemplate:
    """Renders conversations and finds the answers in them.

    style: 'internvl2_5', 'chat' for the tokenizer's own template, or a file that holds a Jinja template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str = "internvl2_5"):
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} gives no character offsets; a tokenizer.json is needed")
        self.tokenizer, self.style = tokenizer, style
        self.template = _find_template(tokenizer, style)
        self.context_id = tokenizer.convert_tokens_to_ids(CONTEXT)
        if self.context_id is None or self.context_id == tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no {CONTEXT}; call prepare_tokenizer first")
        adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        self.prefix = tokenizer.bos_token if style == "internvl2_5" and adds_bos else ""

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer."""
        return [label for label in self.encode(Conversation((("a", "a"),))).labels if label != IGNORED][-1]

    def encode(self, conversation: Conversation) -> Tokens:
        """One placeholder for each image still; expand_images makes them whole."""
        messages = _messages(conversation)
        text = self._render(messages)
        spans = []
        for count, message in enumerate(messages):
            if message["role"] == "assistant":
                start, end = self._render(messages[:count], True), self._render(messages[: count + 1])
                if not (text.startswith(end) and end.startswith(start)):
                    raise ValueError(f"conv_style '{self.style}' rewrites earlier turns; answers cannot be found")
                spans.append((len(start), len(end.rstrip())))
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        labels = [
            token if any(start < last and end > first for first, last in spans) else IGNORED
            for token, (start, end) in zip(found.input_ids, found.offset_mapping)
        ]
        if found.input_ids.count(self.context_id) != len(conversation.images):
            raise ValueError(f"the text itself holds {CONTEXT}, which stands for images alone")
        return Tokens(found.input_ids, labels)

    def prompt(self, conversation: Conversation) -> list[int]:
        """Token ids up to where the last answer begins; that answer's text is not read."""
        text = self._render(_messages(conversation)[:-1], True)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _render(self, messages: list[dict], ask: bool = False) -> str:
        return self.prefix + self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=ask
        )


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, style: str = "internvl2_5") -> None:
    """Add what is missing of the tokens for images and of the template's own, in place, and name them as
    InternVLProcessor asks for them. The embeddings must then be as long as the tokenizer."""
    known = tokenizer.get_vocab()
    # The processor asks for a token for videos, though none are read here; Qwen's tokenizer has one to spare.
    video = "<|video_pad|>" if "<|video_pad|>" in known else "<video>"
    wanted = [START, END, CONTEXT, video] + (["<|im_start|>", "<|im_end|>"] if style == "internvl2_5" else [])
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [token for token in wanted if token not in known]}, replace_extra_special_tokens=False
    )
    names = {"start_image_token": START, "end_image_token": END, "context_image_token": CONTEXT, "video_token": video}
    tokenizer._set_model_specific_special_tokens(names)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or END
    if style == "internvl2_5":
        tokenizer.chat_template = INTERNVL2_5


def expand_images(tokens: Tokens, context_id: int, image_tokens: Sequence[int]) -> Tokens:
    """The k-th placeholder becomes image_tokens[k] placeholders; what they stand for is never learnt."""
    input_ids, labels, images = [], [], iter(image_tokens)
    for token, label in zip(*tokens):
        count = next(images) if token == context_id else 1
        input_ids += [token] * count
        labels += [label] * count
    return Tokens(input_ids, labels)


def _message(message: object) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("value"), str):
        raise ValueError("a turn without 'from' and 'value'")
    if message.get("from") not in SPEAKERS:
        raise ValueError(f"speaker '{message.get('from')}': expected {', '.join(SPEAKERS)}")
    return SPEAKERS[message["from"]], message["value"].strip()


def _messages(conversation: Conversation) -> list[dict]:
    messages = [] if conversation.system is None else [{"role": "system", "content": conversation.system}]
    for question, answer in conversation.turns:
        messages.append({"role": "user", "content": question.replace(IMAGE, START + CONTEXT + END)})
        messages.append({"role": "assistant", "content": answer})
    return messages


def _find_template(tokenizer: PreTrainedTokenizerBase, style: str) -> str:
    if style == "internvl2_5":
        return INTERNVL2_5
    if style != "chat" and not Path(style).is_file():
        raise ValueError(f"conv_style '{style}': expected internvl2_5, chat (the tokenizer's own), or a .jinja file")
    template = tokenizer.chat_template if style == "chat" else Path(style).read_text(encoding="utf-8")
    if not template:
        raise ValueError("conv_style 'chat': this tokenizer has no chat template; use internvl2_5 or a .jinja file")
    return template
