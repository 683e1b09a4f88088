"""What does a description say of a character's hair, eyes, skin, clothes, accessories, ...?

appearance (cleaned text) -> sentences (persona/denial.py) -> find_looks -> {"hair": {"colour": [...], ...}, ...}

Values are words of the text, in the order of the text, so what a character looked like first comes first.
"""

from clip.persona.function_words import ACTED_ON, ACTORS, ARCHERY, BE, JOINTS, PLACES, REACHES
from clip.persona.lexicon import SHADES_ALONE
from clip.persona.negation import read_sentences
from clip.persona.noun_phrases import (
    NOUNS,
    THINGS,
    Sentence,
    at,
    colours_of,
    noun_phrase,
    phrases,
    row_after,
    row_before,
    starts_noun,
    text_of,
)
from clip.persona.person import find_person
from clip.persona.text import PAUSES

LOOKS = {
    "hair": ("colour", "length", "style"),
    "eyes": ("colour", "style"),
    "appearance": ("sex", "age", "build", "skin", "clothing", "accessories", "features", "weapons", "expression"),
}
HEADS = {
    "hair": {"colour", "shade", "length", "hair style"},
    "eyes": {"colour", "shade", "eye style"},
    "skin": {"colour", "shade", "skin word"},
}
KEYS = {
    "clothing": "clothing",
    "accessories": "accessories",
    "features": "features",
    "weapons": "weapons",
    "body part": "features",
    "generic": "clothing",
}  # kind of a thing -> key of LOOKS
SUBSUMED = {*KEYS.values(), "expression"}  # "hat" is the "red hat" again, but "blue" is not "light blue"
NOT_THE_THING = {
    ("staff", "member"),
    ("staff", "members"),
    ("club", "member"),
    ("club", "members"),
    ("ring", "of"),
    ("top", "of"),
    ("tops", "of"),
    ("crown", "of"),
    ("shades", "of"),
}

Found = dict[str, dict[str, list[str]]]


def find_looks(text: str, name: str = "") -> Found:
    """Appearance text -> all keys of LOOKS, each with the values found, maybe none. name: of the character."""
    found = {group: {key: [] for key in keys} for group, keys in LOOKS.items()}
    last = None
    for sentence in read_sentences(text, name):
        last = _find_heads(sentence, found, last)
        find_person(sentence, found["appearance"])
        for place, lexeme in enumerate(sentence):
            if not lexeme.absent:
                _find_thing(sentence, place, found)
    return {
        group: {key: _distinct(values, key in SUBSUMED) for key, values in keys.items()}
        for group, keys in found.items()
    }


# --- hair, eyes, skin -----------------------------------------------------------------------------------------------


def _find_heads(sentence: Sentence, found: Found, last: str | None) -> str | None:
    """last: what "it" and "they" at the start of a sentence speak of -> the same for the next sentence."""
    waiting: list[str] = []  # heads without a colour that "and" joins to the next: "his hair and eyes are brown"
    for place, lexeme in enumerate(sentence):
        head = next((kind for kind in HEADS if kind in lexeme.kinds), None)
        pronoun = head is None and lexeme.words in ("it", "they", "other", "one")
        if head and lexeme.words in ("hair", "eye") and _is_part_of_next(sentence, place):  # "red hair | scrunchie"
            continue
        if pronoun and (last is None or (last == "hair") != (lexeme.words == "it")):
            continue
        if head is None and not pronoun:
            last = None if lexeme.kinds & NOUNS else last
            continue
        last = head = head or last
        if lexeme.absent:
            continue
        before = [] if pronoun else row_before(sentence, place, HEADS[head])
        row = before + row_after(sentence, place, HEADS[head])
        colours = _describe(sentence, head, row, found, pronoun)
        if head == "hair" and not pronoun:
            found["hair"]["length"] += _reaches(sentence, place)
        for other in waiting:
            _add_colours(found, other, colours)
        shared = _next_head(sentence, place)
        waiting = [*waiting, head] if shared and not colours else []
        if shared and colours and before and _is_bare(sentence, shared):  # "brown hair and eyes"
            _add_colours(found, next(kind for kind in HEADS if kind in sentence[shared].kinds), colours)
    return last


def _describe(sentence: Sentence, head: str, row: list[int], found: Found, pronoun: bool) -> list[str]:
    """Put what a row says of a head into `found` -> its colours."""
    if head == "skin":
        values = [text_of(sentence, phrase) for phrase in phrases(sentence, row, HEADS["skin"])]
        _add_colours(found, head, values)
        return values
    colours, taken = colours_of(sentence, row)
    if pronoun and not colours:
        return []
    _add_colours(found, head, colours)
    for place in (one for one in row if one not in taken):
        kinds = sentence[place].kinds
        if head == "hair" and "length" in kinds:
            found["hair"]["length"].append(sentence[place].words)
        elif kinds & {"hair style", "eye style"} & HEADS[head]:
            found[head]["style"].append(sentence[place].words)
    return colours


def _add_colours(found: Found, head: str, colours: list[str]) -> None:
    values = found["appearance"]["skin"] if head == "skin" else found[head]["colour"]
    values += colours


def _next_head(sentence: Sentence, place: int) -> int | None:
    """Place of a head that "and" joins to this one: "hair and (her, matching) eyes"."""
    if at(sentence, place + 1).words not in ("and", "with", ","):
        return None
    for other in range(place + 2, min(place + 5, len(sentence))):
        if sentence[other].kinds & set(HEADS):
            return other
        if sentence[other].words not in ("his", "her", "their", "matching", "and", "similar"):
            return None
    return None


def _is_bare(sentence: Sentence, head: int) -> bool:
    return not row_before(sentence, head, HEADS["hair"]) and not row_after(sentence, head, {"colour", "shade"})


def _reaches(sentence: Sentence, head: int) -> list[str]:
    """ "hair that falls down to her waist" -> waist-length."""
    moving = False
    for place in range(head + 1, min(head + 14, len(sentence))):
        lexeme = sentence[place]
        if lexeme.words in PLACES and moving:
            aside = lexeme.words in ("back", "rear", "ears", "ear") and sentence[place - 1].words == "the"
            return [] if aside or lexeme.absent else [f"{lexeme.words.removesuffix('s')}-length"]
        if lexeme.words in PAUSES - {","} | {"with"} or lexeme.kinds & (NOUNS - {"body part", "body"}):
            return []
        moving |= lexeme.words in REACHES
    return []


# --- things ---------------------------------------------------------------------------------------------------------


def _find_thing(sentence: Sentence, place: int, found: Found) -> None:
    """Clothes, accessories, features, weapons, styled hair, expressions: a noun with its describing words."""
    kinds, looks = sentence[place].kinds, found["appearance"]
    if "blonde" in kinds and not _is_of_a_thing(sentence, place):
        found["hair"]["colour"].append(sentence[place].words)
    if "bald" in kinds:
        found["hair"]["style"].append(sentence[place].words)
    if kinds & {"hair noun", "hair part"}:
        _find_styled_hair(sentence, place, found["hair"])
    elif "pupil" in kinds:
        phrase = noun_phrase(sentence, place, {"colour", "shade", "eye style"})
        found["eyes"]["style"] += [text_of(sentence, phrase)] if len(phrase) > 1 else []
    elif kinds & {"smile", "expression"}:
        phrase = noun_phrase(sentence, place, {"face word"})
        if len(phrase) > 1 or ("smile" in kinds and not _is_acted(sentence, place)):
            looks["expression"].append(text_of(sentence, phrase))
        elif "body part" in kinds:
            _name_thing(sentence, place, looks)
    elif kinds & set(KEYS) and not kinds & {"hair", "eyes"} and not _is_part_of_next(sentence, place):
        _name_thing(sentence, place, looks)


def _name_thing(sentence: Sentence, place: int, looks: dict[str, list[str]]) -> None:
    kinds = sentence[place].kinds
    key = next(KEYS[kind] for kind in KEYS if kind in kinds)
    phrase = noun_phrase(sentence, place, {"colour", "shade", "describing", "length"})
    if len(phrase) == 1 and (kinds & {"generic", "body part"} or _is_acted(sentence, place)):
        return
    if "body part" in kinds and starts_noun(at(sentence, place + 1)):
        return
    if sentence[place].words in ("bow", "bows") and any(
        lexeme.words in ARCHERY or "weapons" in lexeme.kinds for lexeme in sentence
    ):
        key = "weapons"
    text = text_of(sentence, phrase)
    if len(phrase) == 1 and key in ("clothing", "accessories") and at(sentence, place + 1).words in BE:
        colours, _ = colours_of(sentence, row_after(sentence, place, {"colour", "shade"}))
        text = " ".join([*filter(None, [" and ".join(colours)]), text])  # "the jacket is black"
    looks[key].append(text)


def _find_styled_hair(sentence: Sentence, place: int, hair: dict[str, list[str]]) -> None:
    """ "a high brown ponytail": a style, and the hair's colour; "white streaks": a style alone."""
    phrase = noun_phrase(sentence, place, {"colour", "shade", "length", "hair style", "describing"})
    if "hair part" in sentence[place].kinds:
        coloured = any("colour" in sentence[one].kinds for one in phrase)
        hair["style"] += [text_of(sentence, phrase)] if coloured else []
        return
    colours, taken = colours_of(sentence, phrase[:-1])
    hair["colour"] += [colour for colour in colours if colour not in SHADES_ALONE]
    hair["style"].append(
        text_of(sentence, [one for one in phrase if one not in taken and sentence[one].words not in JOINTS])
    )


def _is_acted(sentence: Sentence, place: int) -> bool:
    """Is "dresses", "ties" or "smiles" what somebody does?"""
    start = place - 1
    while "adverb" in at(sentence, start).kinds:
        start -= 1
    subject, behind = at(sentence, start), at(sentence, place + 1).words
    if sentence[place].words.endswith("s") and behind in ACTED_ON:
        return True
    return subject.words in ACTORS or (subject.capital and behind == "in")


def _is_part_of_next(sentence: Sentence, place: int) -> bool:
    """ "armor | plates", "staff | member": the next noun is the thing."""
    thing, following = sentence[place].words, at(sentence, place + 1)
    if (thing, following.words) in NOT_THE_THING or following.words == "like":
        return True
    return bool(following.kinds & THINGS) and not thing.endswith("s")


def _is_of_a_thing(sentence: Sentence, place: int) -> bool:
    """Does "blonde" describe a noun of its own, "blonde | wig"? (of "hair" it is read with the hair)"""
    place += 1
    while at(sentence, place).kinds & {"colour", "length", "hair style"}:
        place += 1
    return bool(at(sentence, place).kinds & (NOUNS - {"person"}))


def _distinct(values: list[str], subsume: bool) -> list[str]:
    """Each once, and where `subsume`, none that only repeats the end of another."""
    values = list(dict.fromkeys(values))
    return [value for value in values if not (subsume and any(other.endswith(f" {value}") for other in values))]
