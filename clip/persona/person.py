"""What does a description say of the person: age, sex and build, and the temper?

sentence (persona/denial.py) -> find_person -> sex, age, build
personality (cleaned text) -> find_traits -> ["cheerful", "kind", ...]

A word counts where it is said of the character ("is tall and shy", "a tall, shy girl"), not of something else ("a tall
hat", "shy people", "the night is quiet"). Words like "kind" and "cold", which say much else too, need more proof.
"""

from collections.abc import Iterator

from clip.persona.function_words import BE, INTENSIFIERS, OF_WHAT, VAGUE_BUILDS
from clip.persona.lexicon import TRAIT_NOUNS
from clip.persona.negation import read_sentences
from clip.persona.noun_phrases import NOUNS, Sentence, at, is_filler, is_said_of_character, starts_noun, without_last
from clip.persona.text import PAUSES

BESIDE = {"age", "build", "colour", "shade", "trait", "blonde", "describing", "skin word"}  # "tall, pale young man"


def find_person(sentence: Sentence, looks: dict[str, list[str]]) -> None:
    """Add to looks["sex"], ["age"] and ["build"] what a sentence says of them."""
    for place, lexeme in enumerate(sentence):
        if lexeme.absent:
            continue
        adjective = at(sentence, place + 1).kinds & (NOUNS | {"generic"})  # "an adult woman", "a schoolgirl outfit"
        if "person" in lexeme.kinds and not adjective and _is_the_character(sentence, place):
            looks["sex"].append(lexeme.words)
        for key in ("age", "build"):
            if key in lexeme.kinds and (noun := _described(sentence, place)) is not None:
                of_body = key == "build" and lexeme.words in OF_WHAT and "body" in sentence[noun].kinds
                looks[key].append(f"{lexeme.words} {sentence[noun].words}" if of_body else lexeme.words)
        if "years" in lexeme.kinds and at(sentence, place - 1).words.isalnum():
            looks["age"].append(f"{sentence[place - 1].words} {lexeme.words}")
        if "pale" in lexeme.kinds and _described(sentence, place) is not None:
            looks["skin"].append(lexeme.words)


def find_traits(text: str, name: str = "") -> list[str]:
    """Personality text -> traits in the order of the text, each once; "her kindness" is "kind"."""
    return list(dict.fromkeys(trait for sentence in read_sentences(text, name) for trait in _traits(sentence)))


# --- age, sex, build ------------------------------------------------------------------------------------------------


def _is_the_character(sentence: Sentence, place: int) -> bool:
    """Is this person said to be the character ("is a tall young man"), and not somebody that is met or resembled?"""
    start = place - 1
    while start >= 0 and place - start < 9:
        lexeme = sentence[start]
        if lexeme.words in ("a", "an", "the", "this") or lexeme.words.endswith((" a", " an")):
            break
        if lexeme.kinds & {"stop", "verb"} or lexeme.words in PAUSES - {","}:
            return False
        start -= 1
    if start <= 0 or sentence[start].words.endswith((" a", " an")):
        return True
    before, earlier = sentence[start - 1].words, at(sentence, start - 2).words
    if before == "as":  # "appears as a girl", not "As a child, she ..."
        return start > 1 and earlier not in PAUSES
    return before in (*BE, ",", "(") or (before == "of" and earlier in ("form", "appearance", "body", "look"))


def _described(sentence: Sentence, place: int) -> int | None:
    """A word of build or age -> place of the noun it describes, or its own where it is said of "he" or "she"."""
    end, strange = place + 1, 0
    while end < len(sentence):
        lexeme = sentence[end]
        if lexeme.kinds & {"person", "body", "character"}:
            return end if "body" in lexeme.kinds or _is_the_character(sentence, end) else None
        if not (lexeme.kinds & BESIDE or is_filler(lexeme)):
            if strange == 2 or lexeme.kinds or not lexeme.words[0].isalpha():
                break
            strange += 1
        end += 1
    start = place - 1
    while at(sentence, start).kinds & {"age", "build", "trait", "skin word"} or is_filler(at(sentence, start)):
        start -= 1
    article, behind = at(sentence, start).words in ("a", "an"), at(sentence, place + 1)
    if starts_noun(behind):  # "is a tall | ninja"
        said = is_said_of_character(sentence, start - article) and behind.joint != "-" and not behind.kinds & NOUNS
        return place if said and sentence[place].words not in VAGUE_BUILDS else None
    if behind.joint == "-" or article or behind.kinds & {"colour", "shade"}:
        return None
    if start < 0 or (start == 0 and "break" in sentence[0].kinds):  # "Tall and slim, with ...", not "Short, messy hair"
        return place if not at(sentence, end).kinds & (NOUNS | {"hair style"}) else None
    return place if is_said_of_character(sentence, start) else None


# --- temper ---------------------------------------------------------------------------------------------------------


def _traits(sentence: Sentence) -> Iterator[str]:
    place = 0
    while place < len(sentence):
        lexeme, before = sentence[place], at(sentence, place - 1).words
        if "trait" in lexeme.kinds:
            row, place = _row(sentence, place)
            yield from (sentence[one].words for one in _of_character(sentence, row, place) if not sentence[one].absent)
            continue
        owned = before in ("his", "her", "their", "and") or before.endswith("'s")
        if lexeme.words in TRAIT_NOUNS and owned and not lexeme.absent:
            yield TRAIT_NOUNS[lexeme.words]
        place += 1


def _row(sentence: Sentence, place: int) -> tuple[list[int], int]:
    """ "kind, rather shy and brave" -> places of its traits, place behind it."""
    row = []
    while at(sentence, place).kinds & {"trait", "age"} or is_filler(at(sentence, place)):
        if "trait" in sentence[place].kinds:
            row.append(place)
        place += 1
    return row, place


def _of_character(sentence: Sentence, row: list[int], end: int) -> list[int]:
    """Which traits of a row are the character's? "is kind", "a kind girl", "is a kind healer"; not "cold weather"."""
    start = row[0] - 1
    while is_filler(at(sentence, start)):
        start -= 1
    article = at(sentence, start).words in ("a", "an")
    lead = at(sentence, start - article).words
    if lead.endswith("thing"):  # "does something | righteous"
        return []
    said = start - article < 0 or lead in ("as", ":", ";") or is_said_of_character(sentence, start - article)
    others = "others" in at(sentence, start - article).kinds  # "those wise enough"
    if others or (lead in BE and not said):  # "the night is | quiet"
        return []
    said = said or at(sentence, row[0] - 1).words in INTENSIFIERS
    if row[-1] == end - 1 and end < len(sentence):
        owner = end
        while owner < end + 2 and not at(sentence, owner).kinds and at(sentence, owner).words[0].isalpha():
            owner += 1
        kinds = at(sentence, owner).kinds
        if kinds & {"character", "person", "kin", "others"}:
            somebody_else = "others" in kinds or ("kin" in kinds and not (said or article))  # "her cynical partner"
            return [] if somebody_else else row
        if starts_noun(sentence[end]) or sentence[end].joint == "-" or (article and not sentence[end].kinds):
            nominal = said and not sentence[end].kinds and (article or sentence[end].words.endswith("s"))
            return row if nominal else without_last(sentence, row, end, led=True) if said else []
    certain = [one for one in row if "ambiguous" not in sentence[one].kinds]
    return row if said or (certain and len(row) > 1) else certain
