"""Person: sex, age and build out of a description, and traits of the personality.

sentence (persona/negation.py) -> find_person -> sex, age, build
personality (cleaned text) -> find_traits -> ["cheerful", "kind", ...]

A word counts where it is said of the character ("is tall and shy", "a tall, shy girl"), not of something else ("a tall
hat", "shy people", "the night is quiet"). Words such as "kind" and "cold", which have other meanings, need more proof.
"""

from collections.abc import Iterator

from clip.persona.lexicon import NOUNS, PAUSES, RULE_WORDS
from clip.persona.negation import read_sentences
from clip.persona.noun_phrases import Sentence, at, is_filler, is_said_of_character, skip, starts_noun, without_last

ARTICLES = (" a", " an", " the", " this")
COMPANIONS = {"age", "build", "colour", "shade", "trait", "blonde", "describing", "skin_word"}  # "tall, pale young man"


def find_person(sentence: Sentence, looks: dict[str, list[str]]) -> None:
    """Add what a sentence says of sex, age and build to looks["sex"], ["age"] and ["build"]."""
    for index, lexeme in enumerate(sentence):
        if lexeme.negated:
            continue
        is_adjective = at(sentence, index + 1).kinds & (NOUNS | {"generic"})  # "an adult woman", "a schoolgirl outfit"
        if "person" in lexeme.kinds and not is_adjective and _is_character(sentence, index):
            looks["sex"].append(lexeme.words)
        for kind in lexeme.kinds & {"age", "build", "pale"}:
            if (noun := _described(sentence, index)) is not None:
                of_body = kind == "build" and lexeme.words in RULE_WORDS.of_what and "body" in sentence[noun].kinds
                looks["skin" if kind == "pale" else kind].append(
                    f"{lexeme.words} {sentence[noun].words}" if of_body else lexeme.words
                )
        if "years" in lexeme.kinds and at(sentence, index - 1).words.isalnum():
            looks["age"].append(f"{sentence[index - 1].words} {lexeme.words}")


def find_traits(text: str, name: str = "") -> list[str]:
    """Personality text -> traits in the order of the text, each once; "her kindness" is "kind"."""
    return list(dict.fromkeys(trait for sentence in read_sentences(text, name) for trait in _traits(sentence)))


# --- sex, age, build ------------------------------------------------------------------------------------------------


def _is_character(sentence: Sentence, index: int) -> bool:
    """Whether this person is the character ("is a tall young man"), and not somebody that is met or resembled."""
    near = range(index - 1, max(index - 9, -1), -1)
    start = next((back for back in near if f" {sentence[back].words}".endswith(ARTICLES)), near.stop)
    if any(lexeme.kinds & {"stop", "verb"} or lexeme.words in PAUSES - {","} for lexeme in sentence[start + 1 : index]):
        return False
    if start <= 0 or sentence[start].words.endswith((" a", " an")):
        return True
    before, earlier = sentence[start - 1].words, at(sentence, start - 2).words
    if before == "as":  # "appears as a girl", not "As a child, she ..."
        return start > 1 and earlier not in PAUSES
    if before == "of":
        return earlier in ("form", "appearance", "body", "look")
    return before in (*RULE_WORDS.be, ",", "(")


def _described(sentence: Sentence, index: int) -> int | None:
    """A word of build or age -> index of the noun it describes, or its own where it is said of "he" or "she"."""
    end, unlisted = index + 1, 0
    while end < len(sentence):
        lexeme = sentence[end]
        if lexeme.kinds & {"person", "body", "character"}:
            return end if "body" in lexeme.kinds or _is_character(sentence, end) else None
        if not (lexeme.kinds & COMPANIONS or is_filler(lexeme)):
            if unlisted == 2 or lexeme.kinds or not lexeme.words[0].isalpha():
                break
            unlisted += 1
        end += 1
    start = skip(
        sentence,
        index - 1,
        -1,
        lambda lexeme: lexeme.kinds & {"age", "build", "trait", "skin_word"} or is_filler(lexeme),
    )
    article, following = at(sentence, start).words in ("a", "an"), at(sentence, index + 1)
    of_character = is_said_of_character(sentence, start - article)
    if starts_noun(following):  # "is a tall | ninja"
        is_applicable = (
            of_character
            and sentence[index].words not in RULE_WORDS.vague_builds
            and following.joint != "-"
            and not following.kinds & NOUNS
        )
    elif following.joint == "-" or article or following.kinds & {"colour", "shade"}:
        return None
    elif start < 0 or (start == 0 and "break" in sentence[0].kinds):  # "Tall and slim", not "Short, messy hair"
        is_applicable = not at(sentence, end).kinds & (NOUNS | {"hair_style"})
    else:
        is_applicable = of_character
    return index if is_applicable else None


# --- traits ---------------------------------------------------------------------------------------------------------


def _traits(sentence: Sentence) -> Iterator[str]:
    index = 0
    while index < len(sentence):
        lexeme, before, end = sentence[index], at(sentence, index - 1).words, index + 1
        if "trait" in lexeme.kinds:  # "kind, rather shy and brave"
            end = skip(sentence, index, 1, lambda lexeme: lexeme.kinds & {"trait", "age"} or is_filler(lexeme))
            row = [position for position in range(index, end) if "trait" in sentence[position].kinds]
            kept = [sentence[position] for position in _of_character(sentence, row, end)]
            yield from (trait.words for trait in kept if not trait.negated)
        elif (
            lexeme.words in RULE_WORDS.trait_nouns
            and not lexeme.negated
            and (before in ("his", "her", "their", "and") or before.endswith("'s"))
        ):
            yield RULE_WORDS.trait_nouns[lexeme.words]
        index = end


def _of_character(sentence: Sentence, row: list[int], end: int) -> list[int]:
    """Those of a row that are the character's: "is kind", "a kind girl", "is a kind healer"; not "cold weather"."""
    start = skip(sentence, row[0] - 1, -1, is_filler)
    article = at(sentence, start).words in ("a", "an")
    verb = start - article
    lead = at(sentence, verb)
    of_character = verb < 0 or lead.words in ("as", ":", ";") or is_said_of_character(sentence, verb)
    if (
        (lead.words in RULE_WORDS.be and not of_character)  # "the night is | quiet"
        or lead.words.endswith("thing")  # "something | righteous"
        or "others" in lead.kinds  # "those wise"
    ):
        return []
    of_character = of_character or at(sentence, row[0] - 1).words in RULE_WORDS.intensifiers
    if row[-1] == end - 1 and end < len(sentence):
        owner = skip(sentence, end, 1, lambda lexeme: not lexeme.kinds and lexeme.words[0].isalpha())
        kinds = at(sentence, min(owner, end + 2)).kinds
        if "others" in kinds or ("kin" in kinds and not (of_character or article)):  # "her cynical partner"
            return []
        if kinds & {"character", "person", "kin"}:
            return row
        noun = sentence[end]
        if starts_noun(noun) or noun.joint == "-" or (article and not noun.kinds):
            is_character = of_character and not noun.kinds and (article or noun.words.endswith("s"))
            return row if is_character else without_last(sentence, row, end, linked=True) if of_character else []
    certain = [index for index in row if "ambiguous" not in sentence[index].kinds]
    return row if of_character or (certain and len(row) > 1) else certain
