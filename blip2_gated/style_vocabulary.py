"""Which words name a style, and which tokens give them away?

style labels of the training set (+ how the answers write them) -> classes, tokens of each, and a search in texts

A token counts for a class if it begins a word of the label (with the space before it: inside words there are pieces
like 'ism'), no other class has it, and it is not short (' of'). Numbers count whatever their length ('3D').
"""

import re
from collections import Counter
from collections.abc import Iterable

import torch
from transformers import PreTrainedTokenizerBase

MIN_CHARACTERS = 3


class StyleVocabulary:
    """Classes of style in a fixed order, `token_ids` (U,) with the class of each in `token_classes` (U,); `spellings`
    of each label are its words, and as answers write them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, labels: Iterable[str], answers: Iterable[str] = ()):
        self.labels = sorted(set(labels))
        self.numbers = {label: number for number, label in enumerate(self.labels)}
        phrases = sorted(((in_words(label), label) for label in self.labels), key=lambda one: -len(one[0]))
        self._class_of = dict(phrases)
        pattern = "|".join(re.escape(phrase) for phrase, _ in phrases)
        self._pattern = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)") if phrases else None
        spellings: dict[str, set[str]] = {label: {in_words(label)} for label in self.labels}
        for answer in set(answers):
            for start, end, label in self._find(answer):
                spellings[label].add(answer[start:end])
        self.spellings = {label: sorted(spellings[label]) for label in self.labels}
        tokens = {label: self._tokens(tokenizer, spellings[label]) for label in self.labels}
        owners = Counter(token for one in tokens.values() for token in one)
        pairs = [
            (token, self.numbers[label])
            for label in self.labels
            for token in sorted(tokens[label])
            if owners[token] == 1
        ]
        # On the CPU wherever a model is being built: they are looked at, also where weights have no values.
        self.token_ids = torch.tensor([token for token, _ in pairs], dtype=torch.int64, device="cpu")
        self.token_classes = torch.tensor([number for _, number in pairs], dtype=torch.int64, device="cpu")
        present = set(self.token_classes.tolist())
        self.without = [label for label in self.labels if self.numbers[label] not in present]

    def named_in(self, text: str) -> list[str]:
        """The labels that a text names, whole words only; of 'fluent flat' and 'flat' the longer."""
        return [label for _, _, label in self._find(text)]

    def _find(self, text: str) -> list[tuple[int, int, str]]:
        if not self._pattern:
            return []
        return [(one.start(), one.end(), self._class_of[one.group()]) for one in self._pattern.finditer(text.lower())]

    def _tokens(self, tokenizer: PreTrainedTokenizerBase, spellings: set[str]) -> set[int]:
        found = set()
        for word in {word for spelling in spellings for word in re.findall(r"\w+", spelling)}:
            first = tokenizer(f" {word}", add_special_tokens=False).input_ids[0]
            piece = tokenizer.decode([first]).strip()
            if len(piece) >= MIN_CHARACTERS or (piece and any(one.isdigit() for one in piece)):
                found.add(first)
        return found


def in_words(label: str) -> str:
    """'fluent_flat' -> 'fluent flat'."""
    return " ".join(label.replace("_", " ").lower().split())
