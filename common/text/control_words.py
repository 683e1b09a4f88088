"""Control words in texts of any origin: "<|im_end|>", "</s>", "<image>" and other tokens by which a prompt is built.

text -> ControlWords.hide -> chat template -> ControlWords.encode -> ids, in which the words of the text are text

A tokenizer takes such words for its tokens wherever they stand: an answer about HTML teaches a model to stop at "<s>".
hide puts a stand-in of two private characters in place of each, so that they differ from the template's own.
Prompts without stand-ins are encoded by the tokenizer itself, the others by a copy of it that knows its control words
under secret names alone. (transformers' sanitize_control_tokens has the same definition of control words, but no
offsets for labels.)
"""

import json
import re
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

MARK = "\U000f0000"  # begins a stand-in; the character FIRST + number of the word follows
FIRST = 0xF0001
TURNS = ("Question 1", "Answer 1", "Question 2", "Answer 2")


class ControlWords:
    """The control words of a tokenizer: special tokens, and other added tokens that `names` hold.

    names: the chat template, and tokens that stand for images.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *names: str | None):
        self.tokenizer = tokenizer
        words = {
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if token.special or (not token.content.isspace() and any(token.content in name for name in names if name))
        }
        # Texts may hold the mark, too: its own stand-in keeps it.
        self.words = [MARK, *sorted(words, key=lambda word: (-len(word), word))]
        self.ids = {id for id, token in tokenizer.added_tokens_decoder.items() if token.content in words}
        self.pattern = re.compile("|".join(map(re.escape, self.words)))
        self.pieces = re.compile(f"{MARK}.|{self.pattern.pattern}|.", re.DOTALL)
        self.turn_words: re.Pattern[str] | None = None

    def find_turn_words(self, render: Callable[[Sequence[str]], str]) -> None:
        """What begins a turn in a template without control words, as "ASSISTANT:" and "[/INST]": hide refuses it.

        render: texts of user, assistant, user, assistant -> the template's text for them.
        """
        between = re.split("|".join(TURNS), render(TURNS))[1:-1]
        if any(self.pattern.search(piece) for piece in between[::2]):  # an answer begins at a control word
            return
        words = {word.strip() for piece in between for word in self.pattern.split(piece)}
        if words := {word for word in words if re.search(r"[^\w\s]", word)}:
            edge = {word: (r"\b" * word[0].isalnum(), r"\b" * word[-1].isalnum()) for word in words}
            self.turn_words = re.compile("|".join(f"{re.escape(word).join(edge[word])}" for word in sorted(words)))

    def hide(self, *texts: str) -> list[str]:
        """Texts of one message, with stand-ins. ValueError for a word that looks like the template's own."""
        if self.turn_words and (turn := self.turn_words.search("".join(texts))):
            raise ValueError(f"the text holds '{turn[0]}', which begins a turn in this chat template")
        words = [word for text in texts for word in self.pattern.findall(text)]
        if words != self.pattern.findall("".join(texts)):  # some templates put all images first
            raise ValueError("an image stands within a control word of the tokenizer")
        if words and not self.tokenizer.is_fast:
            raise ValueError(f"the text holds '{words[0]}', a control word of this tokenizer")
        return [self.pattern.sub(lambda match: MARK + chr(FIRST + self.words.index(match[0])), text) for text in texts]

    def show(self, text: str) -> str:
        """A text with stand-ins as it was before hide."""
        return re.sub(f"{MARK}(.)", lambda match: self.words[ord(match[1]) - FIRST], text)

    def encode(self, text: str, add_special_tokens: bool = False) -> dict[str, Any]:
        """A rendered prompt -> input_ids and, of a fast tokenizer, offset_mapping: places in `text`."""
        if MARK not in text:
            options = {"return_offsets_mapping": True} if self.tokenizer.is_fast else {}
            return self.tokenizer(text, add_special_tokens=add_special_tokens, **options)
        copy, secret_names = self._copy
        rewritten, starts, ends = "", [], []  # starts[i], ends[i]: of character i in `text`
        for match in self.pieces.finditer(text):
            piece = self.show(match[0]) if match[0][0] == MARK else secret_names.get(match[0], match[0])
            rewritten += piece
            starts += [match.start()] * len(piece)
            ends += [match.end()] * len(piece)
        copy.no_truncation()
        encoded = copy.encode(rewritten, add_special_tokens=add_special_tokens)
        places = [(starts[first], ends[last - 1]) if first < last else (0, 0) for first, last in encoded.offsets]
        return {"input_ids": encoded.ids, "offset_mapping": places}

    def within(self, text: str) -> bool:
        """Whether a text holds a control word, before or after Unicode's compatibility normalisation: vocabularies of
        sentencepiece hold control words, too, and are matched after it."""
        return any(map(self.pattern.search, (text, unicodedata.normalize("NFKC", text))))

    def encode_text(self, text: str, add_special_tokens: bool = False, max_length: int | None = None) -> list[int]:
        """A text that no template surrounds -> input_ids; ValueError for control words without a tokenizer.json."""
        if not self.within(text) or not self.tokenizer.is_fast:
            options = {"truncation": max_length is not None, "max_length": max_length, "verbose": False}
            return self.tokenizer(*self.hide(text), add_special_tokens=add_special_tokens, **options).input_ids
        copy, _ = self._copy
        copy.enable_truncation(max_length) if max_length else copy.no_truncation()
        return copy.encode(text, add_special_tokens=add_special_tokens).ids

    @cached_property
    def _copy(self) -> tuple[Tokenizer, dict[str, str]]:
        """The tokenizer with other names for its control words, {control word: the other name}."""
        start = secrets.token_hex(8)  # unknown to whoever wrote the text
        names = {word: f"{start}n{number}e" for number, word in enumerate(self.words) if word != MARK}
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for token in state["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = state["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
        else:  # of Unigram
            model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
        if "unk_token" in model:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        copy = Tokenizer.from_str(json.dumps(state))
        copy.no_padding()
        return copy, names
