"""Noun phrases of a sentence: the words that describe a noun.

sentence (persona/negation.py), index of a noun -> indices of the words that describe it, in the order of the text

A noun ("hair") has modifiers in front of it ("short, messy brown") and, where a verb or a pause leads to them, behind
it ("is long and black"). Modifiers that lead on to another noun belong to that noun.
"""

from collections.abc import Callable, Iterator

from clip.persona.lexicon import NOUNS, PAUSES, RULE_WORDS, THINGS
from common.text.lexicon import Lexeme

Sentence = list[Lexeme]
END = Lexeme(".")


def at(sentence: Sentence, index: int) -> Lexeme:
    """The lexeme at an index, or a full stop beyond either end."""
    return sentence[index] if 0 <= index < len(sentence) else END


def skip(sentence: Sentence, index: int, step: int, condition: Callable[[Lexeme], object]) -> int:
    """The first index from `index` on, in steps of 1 or -1, where the condition does not hold."""
    while condition(at(sentence, index)):
        index += step
    return index


def is_filler(lexeme: Lexeme) -> bool:
    """A comma, "and", "very", "once": may stand between modifiers."""
    return lexeme.words in RULE_WORDS.joints or bool(lexeme.kinds & {"adverb", "temporal"})


def starts_noun(lexeme: Lexeme) -> bool:
    """Whether this is a noun, as far as can be known of unlisted words."""
    if lexeme.words in RULE_WORDS.joints:
        return False
    if lexeme.kinds - {"compound", "describing"}:
        return bool(lexeme.kinds & NOUNS)
    participle = not lexeme.kinds and len(lexeme.words) > 5 and lexeme.words.endswith(("ing", "ed"))
    return lexeme.words[0].isalpha() and not participle and not lexeme.words.endswith("'s")


def modifiers_before(sentence: Sentence, noun: int, wanted: set[str]) -> list[int]:
    """Indices of the words of `wanted` kinds in front of a noun that describe it."""
    modifiers, index, unlisted = [], noun - 1, 0
    while index >= 0:
        lexeme = sentence[index]
        if lexeme.kinds & wanted:
            modifiers.insert(0, index)
        elif not is_filler(lexeme):
            between_commas = sentence[index + 1].words != "," or at(sentence, index - 1).words == ","
            is_listed = lexeme.kinds - {"compound", "describing"} or not lexeme.words[0].isalpha()
            if unlisted or is_listed or not between_commas:
                break
            unlisted += 1  # "long luxurious black hair"
        index -= 1
    if at(sentence, index).words in RULE_WORDS.be:  # "eyes are blue and long silver hair": blue are the eyes
        modifiers = _behind_last_joint(sentence, modifiers, index, noun)
    return [modifier for modifier in modifiers if not sentence[modifier].negated]


def modifiers_after(sentence: Sentence, noun: int, wanted: set[str]) -> list[int]:
    """Indices of the words of `wanted` kinds behind a noun that describe it: "is long and black", ", once blue,"."""
    index, linked = _start_behind(sentence, noun)
    modifiers: list[int] = []
    while index < len(sentence):
        lexeme = sentence[index]
        if lexeme.kinds & wanted:
            modifiers.append(index)
        elif "link_verb" in lexeme.kinds or lexeme.words == ":" or _continues(sentence, index):
            linked = True
        elif not (
            is_filler(lexeme) or "negator" in lexeme.kinds or ("link" in lexeme.kinds and (linked or not modifiers))
        ):
            break
        index += 1
    if index < len(sentence) and starts_noun(sentence[index]):
        modifiers = without_last(sentence, modifiers, index, linked)
    return [modifier for modifier in modifiers if not sentence[modifier].negated]


def _behind_last_joint(sentence: Sentence, indices: list[int], start: int, end: int) -> list[int]:
    """Those behind the last comma or "and" of sentence[start:end]."""
    last = max((index for index in range(start, end) if sentence[index].words in (",", "and")), default=-1)
    return [index for index in indices if index > last]


def _start_behind(sentence: Sentence, noun: int) -> tuple[int, bool]:
    """-> where modifiers behind a noun may start, whether something ("(", "once", "which") has led to them."""
    following = at(sentence, noun + 1).words
    if following not in (",", ";", "(", "and"):
        return noun + 1, False
    start = skip(
        sentence, noun + 2, 1, lambda lexeme: lexeme.words in ("but", "and", "though", "although", "it", "they")
    )
    if following == "(" or (following != "and" and "temporal" in at(sentence, start).kinds):
        return start, True
    return (noun + 2 if following == "," else len(sentence)), False


def _continues(sentence: Sentence, index: int) -> bool:
    """Whether this is the pause in "black; later white" or "blond (black in the manga)"."""
    wanted = {";": {"temporal"}, "(": {"temporal", "colour"}}.get(sentence[index].words, set())
    return bool(at(sentence, index + 1).kinds & wanted)


def without_last(sentence: Sentence, modifiers: list[int], end: int, linked: bool) -> list[int]:
    """Of "are blue and black | hair" the last word belongs to what follows; of ", blue and white | dress" all do."""
    modifiers = list(modifiers)
    while modifiers and all(
        "adverb" in lexeme.kinds or (not linked and lexeme.words in RULE_WORDS.joints)
        for lexeme in sentence[modifiers[-1] + 1 : end]
    ):
        end = modifiers.pop()
    return modifiers


def noun_phrase(sentence: Sentence, noun: int, wanted: set[str]) -> list[int]:
    """Indices of a noun and the modifiers directly in front of it, without commas: "black and white shirt"."""
    phrase, index, pending = [noun], noun - 1, []
    while index >= 0:
        lexeme = sentence[index]
        is_part = lexeme.words in ("hair", "eye") or (lexeme.kinds & THINGS and not lexeme.words.endswith("s"))
        known = lexeme.kinds & wanted or (is_part and index == noun - 1 and sentence[noun].kinds & THINGS)
        enumerated = lexeme.words in (",", "and") and len(phrase) > 1 and at(sentence, index - 1).kinds & wanted
        if known and not lexeme.negated:
            phrase, pending = [index, *pending, *phrase], []
        elif enumerated and not pending:
            pending = [index] if lexeme.words == "and" else []
        elif not (pending or lexeme.kinds or lexeme.words in RULE_WORDS.joints) and (
            lexeme.words.isalpha() and "describing" in wanted
        ):
            pending = [index]  # "black varsity jacket"
        else:
            break
        index -= 1
    if at(sentence, index).words in RULE_WORDS.be and at(sentence, index - 1).kinds & NOUNS:
        return _behind_last_joint(sentence, phrase, index, noun)  # "eyes are blue, black | dress"
    return phrase


def phrases(sentence: Sentence, modifiers: list[int], kinds: set[str]) -> Iterator[list[int]]:
    """Neighbours of `kinds` among modifiers: "light brown", "silver-white", "light shade of brown"."""
    phrase: list[int] = []
    for index in (index for index in modifiers if sentence[index].kinds & kinds):
        if phrase and any(lexeme.words not in RULE_WORDS.shade_of for lexeme in sentence[phrase[-1] + 1 : index]):
            yield phrase
            phrase = []
        phrase.append(index)
    if phrase:
        yield phrase


def colours_of(sentence: Sentence, modifiers: list[int]) -> tuple[list[str], set[int]]:
    """-> colours among modifiers, their indices. A shade alone ("dark hair") counts where there is no colour."""
    shades = list(phrases(sentence, modifiers, {"colour", "shade"}))
    full = [phrase for phrase in shades if any("colour" in sentence[index].kinds for index in phrase)] or [
        phrase for phrase in shades if {sentence[index].words for index in phrase} <= set(RULE_WORDS.shades_alone)
    ]
    return [text_of(sentence, phrase) for phrase in full], {index for phrase in full for index in phrase}


def text_of(sentence: Sentence, indices: list[int]) -> str:
    """The words at these indices, with the hyphens of the text."""
    return "".join(
        (sentence[index].joint if count else "") + sentence[index].words for count, index in enumerate(indices)
    )


def is_said_of_character(sentence: Sentence, verb: int) -> bool:
    """Whether sentence[verb] is the "is" of "she is", "Mira was", "who seems", "tends to be", not of "the night is"."""
    if verb < 0 or sentence[verb].words not in RULE_WORDS.be:
        return False
    if sentence[verb].words in ("he's", "she's", "they're", "be", "being", "been"):
        return True
    start = skip(
        sentence,
        verb - 1,
        -1,
        lambda lexeme: lexeme.kinds & {"adverb", "temporal", "negator"} or lexeme.words in RULE_WORDS.modals,
    )
    subject = at(sentence, start)
    named = subject.capitalized and start > 0  # "then Scar is", not "Hair is"
    if (
        subject.words in RULE_WORDS.something
        or (subject.kinds & NOUNS - {"person", "kin"} and not named)
        or any(lexeme.words in ("that", "which") for lexeme in sentence[start + 1 : verb])
    ):
        return False
    if start in (1, 2) and not subject.kinds and not any("stop" in lexeme.kinds for lexeme in sentence[:start]):
        return True  # "Cave bears are"
    return start >= 0 and (
        bool(subject.kinds & {"person", "character", "verb", "link_verb", "break", "trait"})
        or subject.words in (*RULE_WORDS.joints, *PAUSES, *RULE_WORDS.pronouns, *RULE_WORDS.be, "to")
        or subject.words.endswith(("ed", "ing"))
        or subject.capitalized
    )
