"""Vocabulary of styles: the words that name each style, and the tokens that identify it.

style labels of the training set (+ how the answers write them) -> classes, tokens of each, and a search in texts

A token belongs to a class if it begins a word of the label (with the space before it: inside words there are pieces
like 'ism'), no other class has it, and it is not short (' of'). Digits count whatever their length ('3D').
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from transformers import PreTrainedTokenizerBase

MIN_CHARACTERS = 3


class StyleVocabulary:
    """Style classes in a fixed order, `token_ids` (U,) with the class of each in `token_classes` (U,).

    spellings: {label: its words, and as answers write them}. labels_without_tokens: those that style losses skip.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, labels: Iterable[str], answers: Iterable[str] = ()):
        self.labels = sorted(set(labels))
        self.class_ids = {label: number for number, label in enumerate(self.labels)}
        self._labels_of_phrases = {in_words(label): label for label in self.labels}
        longest_first = sorted(self._labels_of_phrases, key=len, reverse=True)
        phrases = "|".join(map(re.escape, longest_first)) or "(?!)"  # (?!) matches nothing
        self._pattern = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)")
        spellings = {label: {in_words(label)} for label in self.labels}
        for answer in set(answers):
            for start, end, label in self._find(answer):
                spellings[label].add(answer[start:end])
        self.spellings = {label: sorted(spellings[label]) for label in self.labels}
        tokens = {label: _first_tokens(tokenizer, spellings[label]) for label in self.labels}
        owners = Counter(token for label in self.labels for token in tokens[label])
        unique = [(token, label) for label in self.labels for token in sorted(tokens[label]) if owners[token] == 1]
        # On the CPU whatever the default device: their values are needed even where weights are on 'meta'.
        self.token_ids = torch.tensor([token for token, _ in unique], dtype=torch.int64, device="cpu")
        classes = [self.class_ids[label] for _, label in unique]
        self.token_classes = torch.tensor(classes, dtype=torch.int64, device="cpu")
        self.labels_without_tokens = [label for label in self.labels if self.class_ids[label] not in classes]

    def named_in(self, text: str) -> list[str]:
        """The labels that a text names, whole words only; of 'fluent flat' and 'flat' the longer."""
        return [label for _, _, label in self._find(text)]

    def ranked(self, probabilities: Sequence[float]) -> dict[str, float]:
        """(C,) -> {label: probability}, the most probable first."""
        return dict(sorted(zip(self.labels, probabilities), key=lambda pair: -pair[1]))

    def _find(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and label of each style name in a text."""
        for match in self._pattern.finditer(text.lower()):
            yield *match.span(), self._labels_of_phrases[match.group()]


def _first_tokens(tokenizer: PreTrainedTokenizerBase, spellings: set[str]) -> set[int]:
    """The first token of each word, unless it is short."""
    words = {word for spelling in spellings for word in re.findall(r"\w+", spelling)}
    first = {tokenizer(f" {word}", add_special_tokens=False).input_ids[0] for word in words}
    pieces = {token: tokenizer.decode([token]).strip() for token in first}
    return {token for token, piece in pieces.items() if len(piece) >= MIN_CHARACTERS or re.search(r"\d", piece)}


def in_words(label: str) -> str:
    """'fluent_flat' -> 'fluent flat'."""
    return " ".join(label.replace("_", " ").lower().split())
