"""What is read out of descriptions: looks, traits, names, without markup."""

import pytest
from tiny.persona import flat

from clip.persona.appearance import find_appearance
from clip.persona.markup import clean_name, clean_text
from clip.persona.person import find_traits

# Everything a sentence says; what is not listed must not be found. Keys: "hair colour", "eyes style", "clothing", ...
LOOKS = [
    (
        "She has long silver hair and blue eyes.",
        {"hair colour": ["silver"], "hair length": ["long"], "eyes colour": ["blue"]},
    ),
    (
        "She has blue eyes and long silver hair.",
        {"hair colour": ["silver"], "hair length": ["long"], "eyes colour": ["blue"]},
    ),
    ("A bored girl with tangled hair.", {"sex": ["girl"], "hair style": ["tangled"]}),
    ("She takes a tired ride and stares at scared, shared cards.", {}),
    ("Her hair is light brown.", {"hair colour": ["light brown"]}),
    ("He has silver-white hair.", {"hair colour": ["silver-white"]}),
    ("She has reddish-brown hair and sky blue eyes.", {"hair colour": ["reddish-brown"], "eyes colour": ["sky blue"]}),
    ("He has no wings, horns or tail.", {}),
    ("She has no wings but a long tail.", {"features": ["long tail"]}),
    ("He is usually seen without glasses.", {}),
    ("She does not wear a hat or gloves, but wears a red scarf.", {"accessories": ["red scarf"]}),
    ("He never smiles.", {}),
    ("She is never seen without her straw hat.", {"accessories": ["straw hat"]}),
    ("He has neither a beard nor glasses.", {}),
    ("He doesn't have horns and wears a blue robe.", {"clothing": ["blue robe"]}),
    ("Her eyes are not blue but green.", {"eyes colour": ["green"]}),
    ("He is no longer bald and his hair is grey.", {"hair colour": ["grey"]}),
    ("He wishes he had blonde hair.", {}),
    ("She has hair as red as her eyes are green.", {"hair colour": ["red"], "eyes colour": ["green"]}),
    ("A black-haired girl with green eyes.", {"hair colour": ["black"], "eyes colour": ["green"], "sex": ["girl"]}),
    ("Her eyes, once blue, are now red.", {"eyes colour": ["blue", "red"]}),
    ("He initially has black hair; later white.", {"hair colour": ["black", "white"]}),
    ("Her originally brown hair was dyed blonde.[7]", {"hair colour": ["brown", "blonde"]}),
    ("His hair is blond (black in the manga).", {"hair colour": ["blond", "black"]}),
    ("Her hair is pink at first; after the war it turned white.", {"hair colour": ["pink", "white"]}),
    ("His eyes used to be brown. They are now golden.", {"eyes colour": ["brown", "golden"]}),
    ("Short, messy brown hair.", {"hair colour": ["brown"], "hair length": ["short"], "hair style": ["messy"]}),
    ("Her hair is long and black.", {"hair colour": ["black"], "hair length": ["long"]}),
    ("He has brown hair and eyes.", {"hair colour": ["brown"], "eyes colour": ["brown"]}),
    ("His hair and eyes are brown.", {"hair colour": ["brown"], "eyes colour": ["brown"]}),
    ("Her eyes are a deep shade of blue.", {"eyes colour": ["deep blue"]}),
    ("She has one green eye and one gold eye.", {"eyes colour": ["green", "gold"]}),
    ("His left eye is blue while his right eye is red.", {"eyes colour": ["blue", "red"]}),
    ("Hair: Black. Eyes: Light green.", {"hair colour": ["black"], "eyes colour": ["light green"]}),
    ("Green eyes, brown hair, fair skin.", {"eyes colour": ["green"], "hair colour": ["brown"], "skin": ["fair"]}),
    (
        "Her eyes are blue, her hair is black and her dress is white.",
        {"eyes colour": ["blue"], "hair colour": ["black"], "clothing": ["white dress"]},
    ),
    (
        "He has blue-grey eyes and an ash-blond bowl cut.",
        {"eyes colour": ["blue-grey"], "hair colour": ["ash-blond"], "hair style": ["bowl cut"]},
    ),
    ("She wears a red hair ribbon.", {"accessories": ["red hair ribbon"]}),
    (
        "She ties her brown hair in a high ponytail with a blue ribbon.",
        {"hair colour": ["brown"], "hair style": ["high ponytail"], "accessories": ["blue ribbon"]},
    ),
    ("He has black hair with white streaks.", {"hair colour": ["black"], "hair style": ["white streaks"]}),
    ("Her black hair falls down to her waist.", {"hair colour": ["black"], "hair length": ["waist-length"]}),
    ("A blonde woman in her thirties.", {"hair colour": ["blonde"], "sex": ["woman"]}),
    ("Unlike her sister, who has blonde hair, she has black hair.", {"hair colour": ["black"]}),
    ("Her twin brother wears glasses, but she has a monocle.", {"accessories": ["monocle"]}),
    ("He has darker skin than most people and dark green eyes.", {"skin": ["darker"], "eyes colour": ["dark green"]}),
    (
        "A tall, muscular man with dark skin and a scar on his cheek.",
        {"sex": ["man"], "build": ["tall", "muscular"], "skin": ["dark"], "features": ["scar"]},
    ),
    ("She is short for her age and has short hair.", {"build": ["short"], "hair length": ["short"]}),
    ("He is short-tempered and wears tall boots.", {"clothing": ["tall boots"]}),
    ("She is of average height with a slender figure.", {"build": ["average height", "slender"]}),
    ("He is a 16-year-old boy.", {"age": ["16-year-old"], "sex": ["boy"]}),
    ("He is often mistaken for a girl.", {}),
    (
        "She looks like a normal teenage girl with shoulder-length orange hair.",
        {"age": ["teenage"], "sex": ["girl"], "hair colour": ["orange"], "hair length": ["shoulder-length"]},
    ),
    (
        "She wears a black and white striped shirt, a long red skirt and white boots.",
        {"clothing": ["black and white striped shirt", "long red skirt", "white boots"]},
    ),
    ("She has long hair, blue and white dress.", {"hair length": ["long"], "clothing": ["blue and white dress"]}),
    ("She dresses in black.", {}),
    ("She wears a jacket. The jacket is black.", {"clothing": ["black jacket"]}),
    (
        "She has red-rimmed glasses and light-blue hair.",
        {"accessories": ["red-rimmed glasses"], "hair colour": ["light-blue"]},
    ),
    ("His left eye is gone, and he wears a black eyepatch.", {"accessories": ["black eyepatch"]}),
    ("She has cat ears and a fluffy white tail.", {"features": ["cat ears", "fluffy white tail"]}),
    ("He carries a sword and shield.", {"weapons": ["sword", "shield"]}),
    ("He shows a broad smile.", {"expression": ["broad smile"]}),
    (
        "She wears a [[School Uniform|school uniform]], {{Color|red}} a '''blue''' tie<ref>ch. 3</ref>."
        "[citation needed]",
        {"clothing": ["school uniform"], "accessories": ["blue tie"]},
    ),
    ("米拉（ミラ）の髪。She has black hair。", {"hair colour": ["black"]}),
]


TRAITS = [
    ("Cheerful and open, makes friends wherever the road leads.", ["cheerful", "open"]),
    ("She is not very friendly, but loyal.", ["loyal"]),
    ("He is kind and gentle, if a little shy.", ["kind", "gentle", "shy"]),
    ("It is a kind of cold weather that he likes; this kind of person is rare.", []),
    ("He is not only brave but also kind.", ["brave", "kind"]),
    ("She is never rude or lazy.", []),
    ("A hot-headed and stubborn boy who hates cruel people.", ["hot-headed", "stubborn"]),
    ("She is known for her kindness.", ["kind"]),
    ("Unlike his cheerful brother, he is stoic.", ["stoic"]),
    ("He opens the door on cold days; the patient sleeps.", []),
    ("She has a calm, serious personality.", ["calm", "serious"]),
    ("Despite his cold exterior, he is caring.", ["cold", "caring"]),
    ("He lacks confidence.", []),
    ("His sister is cheerful, but he is gloomy.", ["gloomy"]),
    ("She wants to be brave.", []),
    ("He is short-tempered, foul-mouthed and easygoing.", ["short-tempered", "foul-mouthed", "easygoing"]),
    ("She is quiet around strangers and far from lazy.", ["quiet"]),
    ("They are fiercely loyal.", ["loyal"]),
    ("She is anything but shy.", []),
    ("An intelligent [[alchemist]][12] who is, in truth, rather clumsy.", ["intelligent", "clumsy"]),
]


@pytest.mark.parametrize(("text", "expected"), LOOKS, ids=[text[:60] for text, _ in LOOKS])
def test_looks(text, expected):
    assert flat(find_appearance(clean_text(text))) == expected


@pytest.mark.parametrize(("text", "expected"), TRAITS, ids=[text[:60] for text, _ in TRAITS])
def test_traits(text, expected):
    assert find_traits(clean_text(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red hair.[7][12] Blue eyes.[a]", "Red hair. Blue eyes."),
        ("Red hair,[note 3] blue eyes[citation needed] [who?].[1, 2][3–5][nb 2][Ch. 4]", "Red hair, blue eyes."),
        ("[[Hair]] and [[Eye colour|eyes]] [[File:a.png|thumb|of [[Mira]]]]", "Hair and eyes."),
        ("'''Red''' ''hair''<br/>Blue<!-- no --> eyes{{Quote|a {{b}} c}}", "Red hair Blue eyes."),
        ('Red<ref name=x>not [[this]]</ref> hair<ref name="y"/>.', "Red hair."),
        ("== Looks ==\n* Red hair\n* Blue eyes\r\n\n# Tall", "Looks. Red hair. Blue eyes. Tall."),
        ("Red&nbsp;hair &amp; a [https://a.b/c link] https://d.e/f ends", "Red hair & a link ends."),
        ("{| class=x\n|-\n| a || b\n|}Red hair", "Red hair."),
        ("A “quoted” word’s ending\u200b and \ud83d a half pair", 'A "quoted" word\'s ending and a half pair.'),
        ("[black] stays", "[black] stays."),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_markup_goes_and_words_stay(text, expected):
    assert clean_text(text) == expected


def test_names_keep_their_signs():
    assert [clean_name(name) for name in ("<Infinite> #Compass", "Re:Zero", "[[Mira|米拉]] [1]", "K-On!!")] == [
        "<Infinite> #Compass",
        "Re:Zero",
        "米拉",
        "K-On!!",
    ]


def test_a_name_is_no_colour_and_no_trait():
    assert flat(find_appearance("Violet is short. Violet has Violet hair.", "Violet Marsh"))["hair colour"] == [
        "violet"
    ]
    assert find_traits("Sunny is shy. Curious is lazy.", "Curious Sunny") == ["shy", "lazy"]
