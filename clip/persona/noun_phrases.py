"""Which words of a sentence describe which noun?

sentence (persona/denial.py), place of a noun -> places of the words that describe it, in the order of the text

A noun ("hair") owns the row of describing words in front of it ("short, messy brown") and, where a verb or a pause
leads to one, the row behind it ("is long and black"). A row that leads on to another noun is that noun's.
"""

from collections.abc import Iterator

from clip.persona.function_words import BE, JOINTS, MODALS, PRONOUNS, SHADE_OF, SOMETHING
from clip.persona.lexicon import SHADES_ALONE
from clip.persona.text import END, PAUSES, Lexeme

Sentence = list[Lexeme]

THINGS = {"clothing", "accessories", "features", "weapons"}
NOUNS = {
    "hair",
    "eyes",
    "skin",
    "hair noun",
    "hair part",
    "pupil",
    "body",
    "person",
    "clothing",
    "accessories",
    "features",
    "body part",
    "weapons",
    "expression",
    "kin",
}


def at(sentence: Sentence, place: int) -> Lexeme:
    """The lexeme at a place, or a full stop beyond either end."""
    return sentence[place] if 0 <= place < len(sentence) else END


def is_filler(lexeme: Lexeme) -> bool:
    """A comma, "and", "very", "once": may stand inside a row."""
    return lexeme.words in JOINTS or bool(lexeme.kinds & {"adverb", "temporal"})


def starts_noun(lexeme: Lexeme) -> bool:
    """Is this a noun, as far as one can tell of words on no list?"""
    if lexeme.words in JOINTS:
        return False
    if lexeme.kinds - {"compound", "describing"}:
        return bool(lexeme.kinds & NOUNS)
    participle = not lexeme.kinds and len(lexeme.words) > 5 and lexeme.words.endswith(("ing", "ed"))
    return lexeme.words[0].isalpha() and not participle and not lexeme.words.endswith("'s")


def row_before(sentence: Sentence, head: int, wanted: set[str]) -> list[int]:
    """Places of the words of `wanted` kinds that stand in front of a noun and describe it."""
    row, place, strange = [], head - 1, 0
    while place >= 0:
        lexeme = sentence[place]
        if lexeme.kinds & wanted:
            row.insert(0, place)
        elif not is_filler(lexeme):
            unknown = not lexeme.kinds - {"compound", "describing"} and lexeme.words[0].isalpha()
            between_commas = sentence[place + 1].words != "," or at(sentence, place - 1).words == ","
            if strange or not unknown or not between_commas:
                break
            strange += 1  # "long luxurious black hair"
        place -= 1
    if row and at(sentence, place).words in BE:  # "eyes are blue and long silver hair": blue is the eyes'
        joints = [one for one in range(place, head) if sentence[one].words in (",", "and")]
        row = [one for one in row if not joints or one > joints[-1]]
    return [one for one in row if not sentence[one].absent]


def row_after(sentence: Sentence, head: int, wanted: set[str]) -> list[int]:
    """Places of the words of `wanted` kinds that are said of a noun behind it: "is long and black", ", once blue,"."""
    place, led = _start_behind(sentence, head)
    row: list[int] = []
    while place < len(sentence):
        lexeme = sentence[place]
        if lexeme.kinds & wanted:
            row.append(place)
        elif "link verb" in lexeme.kinds or lexeme.words == ":" or _goes_on(sentence, place):
            led = True
        elif not (is_filler(lexeme) or "negator" in lexeme.kinds or ("link" in lexeme.kinds and (led or not row))):
            break
        place += 1
    if place < len(sentence) and starts_noun(sentence[place]):
        row = without_last(sentence, row, place, led)
    return [one for one in row if not sentence[one].absent]


def _start_behind(sentence: Sentence, head: int) -> tuple[int, bool]:
    """-> where a row behind a noun may start, whether something ("(", "once", "which") has led to it."""
    place = head + 1
    first = at(sentence, place).words
    if first == "and":
        return len(sentence), False
    if first not in (",", ";", "("):
        return place, False
    start = place + 1
    while at(sentence, start).words in ("but", "and", "though", "although", "it", "they"):
        start += 1
    if first == "(" or "temporal" in at(sentence, start).kinds:
        return start, True
    return (place + 1 if first == "," else len(sentence)), False


def _goes_on(sentence: Sentence, place: int) -> bool:
    """Is this the pause in "black; later white" or "blond (black in the manga)"?"""
    wanted = {";": {"temporal"}, "(": {"temporal", "colour"}}.get(sentence[place].words, set())
    return bool(at(sentence, place + 1).kinds & wanted)


def without_last(sentence: Sentence, row: list[int], end: int, led: bool) -> list[int]:
    """Of "are blue and black | hair" the last word belongs to what follows; of ", blue and white | dress" all do."""
    row = list(row)
    while row and all(
        "adverb" in lexeme.kinds or (not led and lexeme.words in JOINTS) for lexeme in sentence[row[-1] + 1 : end]
    ):
        end = row.pop()
    return row


def noun_phrase(sentence: Sentence, noun: int, wanted: set[str]) -> list[int]:
    """Places of a noun and the describing words that touch it in front, commas left out: "black and white shirt"."""
    phrase, place, held = [noun], noun - 1, []
    while place >= 0:
        lexeme = sentence[place]
        part = lexeme.words in ("hair", "eye") or (lexeme.kinds & THINGS and not lexeme.words.endswith("s"))
        known = lexeme.kinds & wanted or (part and place == noun - 1 and sentence[noun].kinds & THINGS)
        enumerated = lexeme.words in (",", "and") and len(phrase) > 1 and at(sentence, place - 1).kinds & wanted
        if known and not lexeme.absent:
            phrase, held = [place, *held, *phrase], []
        elif enumerated and not held:
            held = [place] if lexeme.words == "and" else []
        elif _is_unknown(lexeme) and not held and "describing" in wanted:
            held = [place]  # "black varsity jacket"
        else:
            break
        place -= 1
    if at(sentence, place).words in BE and at(sentence, place - 1).kinds & NOUNS:  # "eyes are blue, black | dress"
        joints = [one for one in range(place, noun) if sentence[one].words in (",", "and")]
        phrase = [one for one in phrase if not joints or one > joints[-1]]
    return phrase


def _is_unknown(lexeme: Lexeme) -> bool:
    return not lexeme.kinds and lexeme.words.isalpha() and lexeme.words not in JOINTS


def phrases(sentence: Sentence, row: list[int], kinds: set[str]) -> Iterator[list[int]]:
    """Neighbours of `kinds` in a row: "light brown", "silver-white", "light shade of brown"."""
    phrase: list[int] = []
    for place in row:
        if not sentence[place].kinds & kinds:
            continue
        if phrase and any(lexeme.words not in SHADE_OF for lexeme in sentence[phrase[-1] + 1 : place]):
            yield phrase
            phrase = []
        phrase.append(place)
    if phrase:
        yield phrase


def colours_of(sentence: Sentence, row: list[int]) -> tuple[list[str], set[int]]:
    """-> colours of a row, the places they take. A shade alone ("dark hair") counts where nothing says more."""
    found = list(phrases(sentence, row, {"colour", "shade"}))
    full = [phrase for phrase in found if any("colour" in sentence[place].kinds for place in phrase)]
    if not full:
        full = [phrase for phrase in found if {sentence[place].words for place in phrase} <= set(SHADES_ALONE)]
    return [text_of(sentence, phrase) for phrase in full], {place for phrase in full for place in phrase}


def text_of(sentence: Sentence, places: list[int]) -> str:
    """The words at these places, hyphens as in the text."""
    return "".join(
        (sentence[place].joint if count else "") + sentence[place].words for count, place in enumerate(places)
    )


def is_said_of_character(sentence: Sentence, verb: int) -> bool:
    """Is sentence[verb] the "is" of "she is", "Mira was", "who seems", "tends to be", and not of "the night is"?"""
    if verb < 0 or sentence[verb].words not in BE:
        return False
    if sentence[verb].words in ("he's", "she's", "they're", "be", "being", "been"):
        return True
    place = verb - 1
    while at(sentence, place).kinds & {"adverb", "temporal", "negator"} or at(sentence, place).words in MODALS:
        if sentence[place].words in ("that", "which"):
            return False
        place -= 1
    subject = at(sentence, place)
    named = subject.capital and place > 0  # "then Scar is", not "Hair is"
    thing = subject.kinds & NOUNS - {"person", "kin"} and not named
    if thing or subject.words in SOMETHING:
        return False
    if place in (1, 2) and not subject.kinds and not any("stop" in lexeme.kinds for lexeme in sentence[:place]):
        return True  # "Cave bears are"
    known = subject.kinds & {"person", "character", "verb", "link verb", "break", "trait"}
    other = subject.words in (*JOINTS, *PAUSES, *PRONOUNS, *BE, "to") or subject.words.endswith(("ed", "ing"))
    return bool(known or other or subject.capital) and place >= 0
