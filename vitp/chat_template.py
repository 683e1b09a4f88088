"""Chat templates: conversations to tokens, with one placeholder <IMG_CONTEXT> for each image.

Conversation -> chat template -> text -> input_ids, labels (T,) by common/text/chat_labels.py

A template is InternVL2.5's, the tokenizer's own, or a file of Jinja.
"""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from common.text.chat_labels import IGNORED, LabelledTokens, label_turns
from common.text.control_words import ControlWords
from common.text.conversations import IMAGE, Conversation, Turn
from common.text.files import read_text
from common.training.trained_on import digest_of

CONTEXT, START, END = "<IMG_CONTEXT>", "<img>", "</img>"
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


class ChatTemplate:
    """Renders and tokenises conversations.

    style: 'internvl2_5', 'chat' for the tokenizer's own template, or a file that holds a Jinja template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str = "internvl2_5"):
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} gives no character offsets; a tokenizer.json is needed")
        self.tokenizer = tokenizer
        self.template = _read_template(tokenizer, style)
        self.context_id = tokenizer.convert_tokens_to_ids(CONTEXT)
        if self.context_id is None or self.context_id == tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no {CONTEXT}; call prepare_tokenizer first")
        adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        self.prefix = tokenizer.bos_token if style == "internvl2_5" and adds_bos else ""
        self.control_words = ControlWords(tokenizer, self.template, CONTEXT, START, END)
        self.control_words.find_turn_words(
            lambda texts: self._render(self._messages(Conversation((Turn(*texts[:2]), Turn(*texts[2:])))), False)
        )

    @property
    def digest(self) -> str:
        """Of all by which texts become tokens."""
        return digest_of((self.tokenizer.backend_tokenizer.to_str(), self.template, self.prefix))

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer."""
        return [label for label in self.encode(Conversation((Turn("a", "a"),))).labels if label != IGNORED][-1]

    def encode(self, conversation: Conversation) -> LabelledTokens:
        """Each image is still one placeholder; splice_images makes them whole. Control words in texts stay text."""
        return self.encode_turns(conversation)[0]

    def encode_turns(self, conversation: Conversation) -> tuple[LabelledTokens, list[int]]:
        """-> encode, number of tokens up to the end of each turn, as of label_turns"""
        return label_turns(
            self._messages(conversation),
            self._render,
            self.control_words.encode,
            is_trained=conversation.is_trained,
            control_ids=self.control_words.ids,
        )

    def prompt(self, conversation: Conversation) -> list[int]:
        """Token ids up to the beginning of the last answer, whose text is not used."""
        return self.control_words.encode(self._render(self._messages(conversation)[:-1], True))["input_ids"]

    def _render(self, messages: list[dict], add_generation_prompt: bool) -> str:
        return self.prefix + self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=add_generation_prompt
        )

    def _messages(self, conversation: Conversation) -> list[dict]:
        def message(role: str, text: str) -> dict:
            content = (START + CONTEXT + END).join(self.control_words.hide(*text.split(IMAGE)))
            return {"role": role, "content": content}

        messages = [] if conversation.system is None else [message("system", conversation.system)]
        for question, answer in conversation.turns:
            messages += [message("user", question), message("assistant", answer)]
        return messages


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, style: str = "internvl2_5") -> None:
    """Add the missing tokens of images and of the template, in place, named as InternVLProcessor asks for them.

    The embeddings must then be as long as the tokenizer.
    """
    vocabulary = tokenizer.get_vocab()
    # The processor asks for a token of videos, though none are read here; Qwen's tokenizer has one to spare.
    video = "<|video_pad|>" if "<|video_pad|>" in vocabulary else "<video>"
    needed = [START, END, CONTEXT, video] + (["<|im_start|>", "<|im_end|>"] if style == "internvl2_5" else [])
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [token for token in needed if token not in vocabulary]},
        replace_extra_special_tokens=False,
    )
    tokenizer._set_model_specific_special_tokens(
        {"start_image_token": START, "end_image_token": END, "context_image_token": CONTEXT, "video_token": video}
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or END
    if style == "internvl2_5":
        tokenizer.chat_template = INTERNVL2_5


def _read_template(tokenizer: PreTrainedTokenizerBase, style: str) -> str:
    if style == "internvl2_5":
        return INTERNVL2_5
    if style != "chat" and not Path(style).is_file():
        raise ValueError(f"conv_style '{style}': expected internvl2_5, chat (the tokenizer's own), or a .jinja file")
    template = tokenizer.chat_template if style == "chat" else read_text(style, "conv_style")
    if not template:
        raise ValueError("conv_style 'chat': this tokenizer has no chat template; use internvl2_5 or a .jinja file")
    return template
