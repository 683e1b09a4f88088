"""Appearance: a character's hair, eyes, skin, clothes, accessories ... out of a description.

appearance (cleaned text) -> sentences (persona/negation.py) -> find_appearance -> {"hair": {"colour": [...], ...}, ...}

Values are words of the text, in the order of the text: what a character looked like first comes first.
"""

from clip.persona.lexicon import NOUNS, PAUSES, RULE_WORDS, THINGS
from clip.persona.negation import read_sentences
from clip.persona.noun_phrases import (
    Sentence,
    at,
    colours_of,
    modifiers_after,
    modifiers_before,
    noun_phrase,
    phrases,
    skip,
    starts_noun,
    text_of,
)
from clip.persona.person import find_person

GROUPS = {
    "hair": ("colour", "length", "style"),
    "eyes": ("colour", "style"),
    "appearance": ("sex", "age", "build", "skin", "clothing", "accessories", "features", "weapons", "expression"),
}
MODIFIERS = {  # of hair, eyes, skin
    "hair": {"colour", "shade", "length", "hair_style"},
    "eyes": {"colour", "shade", "eye_style"},
    "skin": {"colour", "shade", "skin_word"},
}
KEYS = {  # kind of a thing -> key of the group "appearance"
    "clothing": "clothing",
    "accessories": "accessories",
    "features": "features",
    "weapons": "weapons",
    "body_part": "features",
    "generic": "clothing",
}
SUBSUMED = {*KEYS.values(), "expression"}  # "hat" is the "red hat" again, but "blue" is not "light blue"
NOT_THINGS = {
    *((noun, member) for noun in ("staff", "club") for member in ("member", "members")),
    *((noun, "of") for noun in ("ring", "top", "tops", "crown", "shades")),
}

Values = dict[str, dict[str, list[str]]]


def find_appearance(text: str, name: str = "") -> Values:
    """Appearance text -> all keys of GROUPS, each with its values, possibly none. name: of the character."""
    values: Values = {group: {key: [] for key in keys} for group, keys in GROUPS.items()}
    last = None
    for sentence in read_sentences(text, name):
        last = _find_heads(sentence, values, last)
        find_person(sentence, values["appearance"])
        for index, lexeme in enumerate(sentence):
            if not lexeme.negated:
                _find_thing(sentence, index, values)
    return {
        group: {key: _distinct(words, key in SUBSUMED) for key, words in keys.items()} for group, keys in values.items()
    }


# --- hair, eyes, skin -----------------------------------------------------------------------------------------------


def _find_heads(sentence: Sentence, values: Values, last: str | None) -> str | None:
    """last: what "it" and "they" at the start of a sentence refer to -> the same for the next sentence."""
    waiting: list[str] = []  # heads without a colour that "and" joins to the next: "his hair and eyes are brown"
    for index, lexeme in enumerate(sentence):
        head = _head_of(sentence, index)
        pronoun = head is None and lexeme.words in ("it", "they", "other", "one")
        if head is None and not pronoun:
            last = None if lexeme.kinds & NOUNS else last
        if pronoun and last and (last == "hair") == (lexeme.words == "it"):
            head = last
        if head is None or (lexeme.words in ("hair", "eye") and _modifies_next(sentence, index)):
            continue  # "red hair | scrunchie"
        last = head
        if lexeme.negated:
            continue
        before = [] if pronoun else modifiers_before(sentence, index, MODIFIERS[head])
        modifiers = before + modifiers_after(sentence, index, MODIFIERS[head])
        colours = _describe(sentence, head, modifiers, values, pronoun)
        if head == "hair" and not pronoun:
            values["hair"]["length"] += _reaches(sentence, index)
        shared = _joined_head(sentence, index)
        bare = shared and not (
            modifiers_before(sentence, shared, MODIFIERS["hair"])
            or modifiers_after(sentence, shared, {"colour", "shade"})
        )
        also = [_head_of(sentence, shared)] if bare and colours and before else []  # "brown hair and eyes"
        for other in waiting + also:
            _colours(values, other).extend(colours)
        waiting = [*waiting, head] if shared and not colours else []
    return last


def _head_of(sentence: Sentence, index: int) -> str | None:
    return next((head for head in MODIFIERS if head in sentence[index].kinds), None)


def _describe(sentence: Sentence, head: str, modifiers: list[int], values: Values, pronoun: bool) -> list[str]:
    """Add what modifiers say of a head to `values` -> its colours."""
    if head == "skin":
        colours, used = [text_of(sentence, phrase) for phrase in phrases(sentence, modifiers, MODIFIERS["skin"])], set()
    else:
        colours, used = colours_of(sentence, modifiers)
    _colours(values, head).extend(colours)
    for index in modifiers if head != "skin" and (colours or not pronoun) else ():
        kinds = sentence[index].kinds
        key = "length" if head == "hair" and "length" in kinds else "style"
        if index not in used and (key == "length" or kinds & {"hair_style", "eye_style"} & MODIFIERS[head]):
            values[head][key].append(sentence[index].words)
    return colours


def _colours(values: Values, head: str) -> list[str]:
    return values["appearance"]["skin"] if head == "skin" else values[head]["colour"]


def _joined_head(sentence: Sentence, index: int) -> int | None:
    """Index of a head that "and" joins to this one: "hair and (her, matching) eyes"."""
    if at(sentence, index + 1).words not in ("and", "with", ","):
        return None
    other = skip(
        sentence,
        index + 2,
        1,
        lambda lexeme: (
            not lexeme.kinds & set(MODIFIERS) and lexeme.words in ("his", "her", "their", "matching", "and", "similar")
        ),
    )
    return other if other < index + 5 and at(sentence, other).kinds & set(MODIFIERS) else None


def _reaches(sentence: Sentence, head: int) -> list[str]:
    """ "hair that falls down to her waist" -> waist-length."""
    moving = False
    for index, lexeme in enumerate(sentence[head + 1 : head + 14], head + 1):
        if lexeme.words in RULE_WORDS.places and moving:
            aside = lexeme.words in ("back", "rear", "ears", "ear") and sentence[index - 1].words == "the"
            return [] if aside or lexeme.negated else [f"{lexeme.words.removesuffix('s')}-length"]
        if lexeme.words in PAUSES - {","} | {"with"} or lexeme.kinds & (NOUNS - {"body_part", "body"}):
            return []
        moving |= lexeme.words in RULE_WORDS.reaches
    return []


# --- things ---------------------------------------------------------------------------------------------------------


def _find_thing(sentence: Sentence, index: int, values: Values) -> None:
    """Clothes, accessories, features, weapons, styled hair, expressions: a noun with its modifiers."""
    kinds, appearance = sentence[index].kinds, values["appearance"]
    if "blonde" in kinds:  # "blonde | wig" describes a noun of its own; "blonde hair" is read with the hair
        noun = skip(sentence, index + 1, 1, lambda lexeme: lexeme.kinds & {"colour", "length", "hair_style"})
        if not at(sentence, noun).kinds & (NOUNS - {"person"}):
            values["hair"]["colour"].append(sentence[index].words)
    if "bald" in kinds:
        values["hair"]["style"].append(sentence[index].words)
    if kinds & {"hair_noun", "hair_part"}:
        _find_styled_hair(sentence, index, values["hair"])
    elif "pupil" in kinds:
        phrase = noun_phrase(sentence, index, {"colour", "shade", "eye_style"})
        values["eyes"]["style"] += [text_of(sentence, phrase)] if len(phrase) > 1 else []
    elif kinds & {"smile", "expression"}:
        phrase = noun_phrase(sentence, index, {"face_word"})
        if len(phrase) > 1 or ("smile" in kinds and not _is_verb(sentence, index)):
            appearance["expression"].append(text_of(sentence, phrase))
        elif "body_part" in kinds:
            _add_thing(sentence, index, appearance)
    elif kinds & set(KEYS) and not kinds & {"hair", "eyes"} and not _modifies_next(sentence, index):
        _add_thing(sentence, index, appearance)


def _add_thing(sentence: Sentence, index: int, appearance: dict[str, list[str]]) -> None:
    kinds, following = sentence[index].kinds, at(sentence, index + 1)
    key = next(KEYS[kind] for kind in KEYS if kind in kinds)
    phrase = noun_phrase(sentence, index, {"colour", "shade", "describing", "length"})
    alone = len(phrase) == 1
    if (alone and (kinds & {"generic", "body_part"} or _is_verb(sentence, index))) or (
        "body_part" in kinds and starts_noun(following)
    ):
        return
    if sentence[index].words in ("bow", "bows") and any(
        lexeme.words in RULE_WORDS.archery or "weapons" in lexeme.kinds for lexeme in sentence
    ):
        key = "weapons"
    text = text_of(sentence, phrase)
    if alone and key in ("clothing", "accessories") and following.words in RULE_WORDS.be:  # "the jacket is black"
        colours, _ = colours_of(sentence, modifiers_after(sentence, index, {"colour", "shade"}))
        text = f"{' and '.join(colours)} {text}".lstrip()
    appearance[key].append(text)


def _find_styled_hair(sentence: Sentence, index: int, hair: dict[str, list[str]]) -> None:
    """ "a high brown ponytail": a style, and the hair's colour; "white streaks": a style alone."""
    phrase = noun_phrase(sentence, index, {"colour", "shade", "length", "hair_style", "describing"})
    colours, used = colours_of(sentence, phrase[:-1])
    if "hair_part" not in sentence[index].kinds:
        hair["colour"] += [colour for colour in colours if colour not in RULE_WORDS.shades_alone]
        phrase = [part for part in phrase if part not in used and sentence[part].words not in RULE_WORDS.joints]
    elif not any("colour" in sentence[part].kinds for part in phrase):
        return
    hair["style"].append(text_of(sentence, phrase))


def _is_verb(sentence: Sentence, index: int) -> bool:
    """Whether "dresses", "ties" or "smiles" is what somebody does."""
    subject = at(sentence, skip(sentence, index - 1, -1, lambda lexeme: "adverb" in lexeme.kinds))
    following = at(sentence, index + 1).words
    return (
        (sentence[index].words.endswith("s") and following in RULE_WORDS.acted_on)
        or subject.words in RULE_WORDS.actors
        or (subject.capitalized and following == "in")
    )


def _modifies_next(sentence: Sentence, index: int) -> bool:
    """ "armor | plates", "staff | member": the next noun is the thing."""
    noun, following = sentence[index].words, at(sentence, index + 1)
    return (
        bool(following.kinds & THINGS and not noun.endswith("s"))
        or following.words == "like"
        or (noun, following.words) in NOT_THINGS
    )


def _distinct(values: list[str], subsume: bool) -> list[str]:
    """Each once, and where `subsume`, none that only repeats the end of another."""
    values = list(dict.fromkeys(values))
    return [value for value in values if not (subsume and any(other.endswith(f" {value}") for other in values))]
