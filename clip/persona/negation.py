"""Which words of a sentence are denied, or said of somebody else?

text -> `read_words` -> sentences, with Lexeme.absent set on what is not so of the character

"She wears no hat or gloves, but a scarf": hat and gloves are absent, the scarf is not. A denial reaches to the end of
its clause; what is said of "her sister, who ..." is absent too, and so is what "unlike", "than" or "wishes" lead to.
"""

from collections.abc import Iterator

from clip.persona.function_words import COMPARING, JOINED_KIN, PRONOUNS
from clip.persona.lexicon import WORD_LISTS
from clip.persona.noun_phrases import Sentence, at
from clip.persona.text import PAUSES, Lexeme, read_words

CONTENT = set(WORD_LISTS) - {"stop", "verb", "link verb", "link", "adverb", "temporal", "negator", "break", "kin"}
STOPS_CLAUSE = PAUSES - {",", "/"}


def read_sentences(text: str, name: str = "") -> Iterator[Sentence]:
    """Cleaned text -> sentences with what is not so marked `absent`. name: of the character."""
    for sentence in read_words(text, name):
        _mark_denied(sentence)
        _mark_others(sentence)
        yield sentence


def _mark_denied(sentence: Sentence) -> None:
    for place, lexeme in enumerate(sentence):
        if "negator" in lexeme.kinds:
            for inside in _scope(sentence, place):
                twice = lexeme.words == "without" and lexeme.absent  # "never seen without her hat" has it on
                inside.absent = not twice


def _scope(sentence: Sentence, start: int) -> Iterator[Lexeme]:
    """What the negator at `start` denies: up to the end of its clause."""
    negator, content = sentence[start].words, False
    for place in range(start + 1, len(sentence)):
        lexeme, following = sentence[place], at(sentence, place + 1)
        if lexeme.words in STOPS_CLAUSE or "break" in lexeme.kinds:
            return
        if lexeme.words == "," and not _list_goes_on(sentence, place):
            return
        if content and ("verb" in lexeme.kinds or lexeme.words in (*PRONOUNS, "with")):
            return
        if lexeme.words == "and":
            described = following.kinds & {"colour", "shade", "length", "describing"} or following.words in ("a", "an")
            ended = (
                described
                if negator == "no"
                else content and negator in COMPARING and negator not in ("against", "vulnerable to")
            )
            if ended or "verb" in following.kinds or following.words in PRONOUNS or _owns(following):
                return
        content |= bool(lexeme.kinds & CONTENT) or (negator in COMPARING and "stop" not in lexeme.kinds)
        yield lexeme


def _list_goes_on(sentence: Sentence, comma: int) -> bool:
    """Is this comma inside "a, b or c"?"""
    for lexeme in sentence[comma + 1 :]:
        if lexeme.words in ("or", "nor"):
            return True
        if lexeme.words in STOPS_CLAUSE or lexeme.words in PRONOUNS or lexeme.kinds & {"break", "verb"}:
            return False
    return False


def _mark_others(sentence: Sentence) -> None:
    """What "her sister, who has blonde hair" or "while his twin wears glasses" say is said of somebody else."""
    for place, lexeme in enumerate(sentence):
        if "kin" not in lexeme.kinds:
            continue
        owner = next((back for back in range(place - 1, max(place - 4, -1), -1) if _owns(sentence[back])), None)
        if owner is None:
            continue
        comma = at(sentence, place + 1).words == ","
        start = place + 1 + comma
        who = at(sentence, start).words in ("who", "whose")
        alone = not comma and at(sentence, owner - 1).words not in JOINED_KIN and "verb" in at(sentence, start).kinds
        for other in range(start, len(sentence) if who or alone else start):
            if sentence[other].words in STOPS_CLAUSE or (other > start and "break" in sentence[other].kinds):
                break
            if sentence[other].words == "," and (who or _new_subject(sentence, other)):
                break
            sentence[other].absent = True


def _owns(lexeme: Lexeme) -> bool:
    return lexeme.words in ("his", "her", "their", "its") or lexeme.words.endswith(("'s", "s'"))


def _new_subject(sentence: Sentence, comma: int) -> bool:
    return any(lexeme.words in PRONOUNS or _owns(lexeme) for lexeme in sentence[comma + 1 : comma + 3])
