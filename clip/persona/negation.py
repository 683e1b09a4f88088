"""Negation: which words of a sentence are denied, or said of somebody else.

text -> lexicon -> sentences, `negated` set on the lexemes that are not true of the character

"She wears no hat or gloves, but a scarf": hat and gloves are negated, the scarf is not. A negator reaches to the end of
its clause; what is said of "her sister, who ..." is negated too, and so is what follows "unlike", "than" or "wishes".
"""

from collections.abc import Iterator

from clip.persona.lexicon import LEXICON, PAUSES, RULE_WORDS, WORD_KINDS
from clip.persona.noun_phrases import END, Sentence, at
from common.text.lexicon import Lexeme

CONTENT = set(WORD_KINDS) - {"stop", "verb", "link_verb", "link", "adverb", "temporal", "negator", "break", "kin"}
CLAUSE_ENDS = PAUSES - {",", "/"}


def read_sentences(text: str, name: str = "") -> Iterator[Sentence]:
    """Cleaned text -> sentences, negations marked. A word of the character's `name` ("Violet") is no colour."""
    name_words = set(name.lower().replace("-", " ").split())
    for sentence in LEXICON.read(text):
        for lexeme, following in zip(sentence, [*sentence[1:], END]):
            is_name = lexeme.capitalized and lexeme.words in name_words
            if is_name and not following.kinds - {"verb", "link_verb", "stop", "link"}:
                lexeme.kinds = frozenset()
        for index, negator in enumerate(sentence):
            for lexeme in _scope(sentence, index) if "negator" in negator.kinds else ():
                lexeme.negated = not (negator.words == "without" and lexeme.negated)  # "never seen without her hat"
        _mark_others(sentence)
        yield sentence


def _scope(sentence: Sentence, start: int) -> Iterator[Lexeme]:
    """What the negator at `start` denies: up to the end of its clause."""
    negator, content = sentence[start].words, False
    comparing = negator in RULE_WORDS.comparing
    for index in range(start + 1, len(sentence)):
        lexeme, following = sentence[index], at(sentence, index + 1)
        next_clause = content and ("verb" in lexeme.kinds or lexeme.words in (*RULE_WORDS.pronouns, "with"))
        if _ends_clause(lexeme) or next_clause or (lexeme.words == "," and not _is_enumeration(sentence, index)):
            return
        if lexeme.words == "and":
            if negator == "no":
                ended = following.kinds & {"colour", "shade", "length", "describing"} or following.words in ("a", "an")
            else:
                ended = content and comparing and negator not in ("against", "vulnerable to")
            if ended or "verb" in following.kinds or _is_subject(following):
                return
        content |= bool(lexeme.kinds & CONTENT) or (comparing and "stop" not in lexeme.kinds)
        yield lexeme


def _is_enumeration(sentence: Sentence, comma: int) -> bool:
    """Whether this comma is inside "a, b or c"."""
    ends = ("or", "nor", *RULE_WORDS.pronouns)
    last = next(
        (
            lexeme
            for lexeme in sentence[comma + 1 :]
            if lexeme.words in ends or "verb" in lexeme.kinds or _ends_clause(lexeme)
        ),
        END,
    )
    return last.words in ("or", "nor")


def _mark_others(sentence: Sentence) -> None:
    """Negate what is said of somebody else: "her sister, who has blonde hair", "while his twin wears glasses"."""
    for index, lexeme in enumerate(sentence):
        owner = next((back for back in range(index - 1, max(index - 4, -1), -1) if _is_owner(sentence[back])), None)
        if "kin" not in lexeme.kinds or owner is None:
            continue
        comma = at(sentence, index + 1).words == ","
        start = index + 1 + comma
        relative = at(sentence, start).words in ("who", "whose")
        joined = comma or at(sentence, owner - 1).words in RULE_WORDS.joined_kin
        if not relative and (joined or "verb" not in at(sentence, start).kinds):
            continue
        for other in range(start, len(sentence)):
            ends = sentence[other].words in CLAUSE_ENDS or (other > start and "break" in sentence[other].kinds)
            subject = relative or any(map(_is_subject, sentence[other + 1 : other + 3]))
            if ends or (sentence[other].words == "," and subject):
                break
            sentence[other].negated = True


def _ends_clause(lexeme: Lexeme) -> bool:
    return lexeme.words in CLAUSE_ENDS or "break" in lexeme.kinds


def _is_owner(lexeme: Lexeme) -> bool:
    return lexeme.words in ("his", "her", "their", "its") or lexeme.words.endswith(("'s", "s'"))


def _is_subject(lexeme: Lexeme) -> bool:
    return lexeme.words in RULE_WORDS.pronouns or _is_owner(lexeme)
