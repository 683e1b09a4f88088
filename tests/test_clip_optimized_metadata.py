"""What is read out of character descriptions, against answers written by hand; the sentences; the command."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny.persona import RECORD, flat, slow_count

from clip.optimized_metadata import optimise_record
from clip.persona import sentence as persona_sentence
from clip.persona.lexicon import RULE_WORDS
from clip.persona.markup import clean_text
from common.samples import layouts
from common.samples.layouts import create_sample_dataset
from common.samples.portraits import EXPRESSIONS, random_portrait


def line_of(record, max_tokens=77):
    return optimise_record(record, max_tokens)[0]


def test_a_line_as_a_whole():
    assert line_of(RECORD) == {
        "id": "mira_01",
        "file_name": "images/mira_01.png",
        "character": "Mira Vale",
        "title": "Paper Harbour",
        "hair": {"colour": ["black"], "length": ["long"], "style": ["wavy", "high ponytail"]},
        "eyes": {"colour": ["green"], "style": []},
        "appearance": {
            "sex": ["woman"],
            "age": ["young"],
            "build": ["tall"],
            "skin": [],
            "clothing": ["red dress"],
            "accessories": ["orange hat"],
            "features": ["horns"],
            "weapons": [],
            "expression": ["broad smile"],
        },
        "personality": ["cheerful"],
        "text": "Mira Vale from Paper Harbour, a young tall woman, with long wavy black hair, a high ponytail, green "
        "eyes, horns and a broad smile, wearing a red dress and an orange hat; cheerful.",
    }


@pytest.mark.parametrize("max_tokens", range(8, 60, 3))
def test_a_sentence_is_cut_between_phrases(max_tokens):
    whole, (line, was_cut) = line_of(RECORD)["text"], optimise_record(RECORD, max_tokens)
    text = line["text"]
    assert slow_count(text) <= max_tokens
    assert set(words_of(text)) <= set(words_of(whole))
    assert was_cut == (text != whole) == (slow_count(whole) > max_tokens)
    if max_tokens >= 14:  # the name fits: what follows are whole items
        assert text.startswith("Mira Vale from Paper Harbour") and text.endswith((".", "Harbour"))
    if "ponytail" in text:
        assert "a high ponytail" in text


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Mira " * 200, "Mira "),
        ("米拉·韦尔" * 40, ""),
        ("x" * 400, "x" * 400),
        ("🦊" * 200, "🦊" * 200),
        ("<start_of_text>" * 90, "<start_of_text>" * 90),
    ],
)
def test_no_name_is_too_long_and_no_word_is_cut(name, unit):
    text = line_of({"file_name": "a.png", "character": name, "appearance": "Red hair."})["text"]
    assert slow_count(text) <= 77 and name.startswith(text)
    if unit:
        assert f"{text} ".replace(unit, "").strip() == ""  # whole words only
    assert bool(text) == (len(unit) < 10)


def test_where_nothing_is_found_the_description_is_quoted():
    line = line_of(
        {"file_name": "a.png", "character": "Rua", "appearance": "It comes at night[3] " + "and sings " * 90}
    )
    assert line["text"].startswith("Rua. It comes at night and sings") and slow_count(line["text"]) <= 77
    assert set(words_of(line["text"])) == {"rua", "it", "comes", "at", "night", "and", "sings"}
    assert line_of({"file_name": "a.png"})["text"] == ""
    assert line_of({"file_name": "a.png", "appearance": "Red hair."})["text"] == "A character, with red hair."


def test_fields_of_other_types_and_none():
    line = line_of({"file_name": "a.png", "title": None, "appearance": ["red hair", "blue eyes"]})
    assert line["character"] == line["title"] == "" and line["personality"] == []
    assert line["hair"]["colour"] == ["red"] and line["eyes"]["colour"] == ["blue"]
    for broken in ({}, {"file_name": ""}, {"file_name": 3}):
        with pytest.raises(ValueError, match="no file_name"):
            line_of(broken)
    for value in (9, float("nan"), True, {"kind": True}, ["kind", ["calm"]], "\ud83d", "\0"):
        with pytest.raises(ValueError, match="^personality: "):
            line_of({"file_name": "a.png", "personality": value})


def test_the_tokenizer_does_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(persona_sentence, "MAX_CACHED_WORDS", 50)
    counts = [
        persona_sentence.count_tokens(f"name{chr(97 + i % 26)}{chr(97 + i // 26)} has red hair") for i in range(200)
    ]
    assert len(persona_sentence._tokenizer().cache) < 70
    assert counts == [slow_count(f"name{chr(97 + i % 26)}{chr(97 + i // 26)} has red hair") for i in range(200)]


PARTS = [
    "hair",
    "eyes",
    "black",
    "light",
    "-",
    "brown",
    "and",
    ",",
    ".",
    "no",
    "without",
    "her",
    "sister",
    "who",
    "is",
    "has",
    "wears",
    "a",
    "dress",
    "red",
    "kind",
    "shy",
    "girl",
    "long",
    "not",
    "but",
    "tall",
    "skin",
    "[7]",
    "tail",
    "with",
    "of",
    "ponytail",
    "(",
    ")",
    ";",
    "later",
    "white",
    "smile",
    "16-year-old",
    "it",
    "米",
    "'s",
    "{{",
    "<br>",
    "waist",
    "reaches",
    "the",
    "hat",
    "very",
    "kindness",
    "he",
    "years old",
]


def words_of(text):
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def values_of(line):
    yield from (
        value for group in ("hair", "eyes", "appearance") for values in line[group].values() for value in values
    )


def check_line(record, max_tokens=77):
    """What must hold of any record's line."""
    line = line_of(record, max_tokens)
    assert line == line_of(dict(record), max_tokens)
    assert slow_count(line["text"]) <= max_tokens
    looks, temper = words_of(clean_text(record["appearance"])), words_of(clean_text(record["personality"]))
    for value in values_of(line):
        if not value.endswith("-length"):
            assert set(words_of(value)) - {"and"} <= set(looks), value
    nouns = {adjective: noun for noun, adjective in RULE_WORDS.trait_nouns.items()}
    for trait in line["personality"]:
        assert set(words_of(trait)) <= set(temper) or nouns[trait] in temper
    assert json.loads(json.dumps(line, ensure_ascii=False).encode()) == line
    return line


ANY_CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=40).map(" ".join), st.integers(8, 77))
def test_any_order_of_words(text, max_tokens):
    check_line({"file_name": "a.png", "character": "Rose", "appearance": text, "personality": text}, max_tokens)


@settings(max_examples=100, deadline=None)
@given(st.text(ANY_CHARACTER, max_size=80), st.text(ANY_CHARACTER, max_size=80))
def test_any_text(text, name):
    line = line_of({"file_name": "a.png", "character": name, "title": text, "appearance": text, "personality": name})
    assert slow_count(line["text"]) <= 77
    json.dumps(line, ensure_ascii=False).encode()


@pytest.mark.parametrize("part", ["{{", "[[", "<ref>", "<!--", "{|", "no ", "red, ", "a-", "her sister ", "[[a|", "("])
def test_nonsense_is_read_too(part):
    check_line({"file_name": "a.png", "appearance": part * 3000, "personality": part * 3000})


def scores(pairs):
    """(found, true) dicts of lists -> precision, recall over all values."""
    found, true = (
        {
            (index, key, value)
            for index, pair in enumerate(pairs)
            for key, values in pair[side].items()
            for value in values
        }
        for side in (0, 1)
    )
    return len(found & true) / len(found), len(found & true) / len(true)


def flat_line(line):
    found = flat({group: line[group] for group in ("hair", "eyes", "appearance")})
    return found | ({"traits": line["personality"]} if line["personality"] else {})


def test_drawn_characters_are_read_as_they_were_drawn(tmp_path):
    create_sample_dataset(tmp_path, 60, seed=3, layout="persona", size=16)
    traits = {
        "smiling": ["cheerful", "open"],
        "serious": ["calm", "reserved"],
        "sad": ["gentle", "melancholy"],
        "surprised": ["curious"],
        "angry": ["proud", "quick-tempered"],
    }
    pairs = []
    for index, row in enumerate((tmp_path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()):
        line = line_of(json.loads(row))
        drawn = random_portrait(layouts._random(3, "portrait", index), line["character"])
        pairs.append(
            (
                flat_line(line),
                {
                    "hair colour": [drawn.hair],
                    "hair length": [drawn.length],
                    "eyes colour": [drawn.eyes],
                    "clothing": [f"{drawn.outfit} outfit"],
                    "accessories": [f"{drawn.accessory_colour} {drawn.accessory}"],
                    "expression": [EXPRESSIONS[drawn.expression][0].split(" ", 1)[1]],
                    "traits": traits[drawn.expression],
                },
            )
        )
    assert min(scores(pairs)) >= 0.99


# Read by eye in the real metadata, all that is said of what the picture shows (in `appearance`) and of the temper.
REAL = {
    "monsters_fire_wraith_A": {"clothing": ["odd armor"]},
    "undead_lich": {},
    "humans_duelist": {"weapons": ["small crossbow"], "clothing": ["coat", "cape"]},
    "humans_spearman-2": {"clothing": ["leather armor"], "weapons": ["spears", "shield", "javelins"]},
    "undead_deathblade": {"build": ["frail"], "weapons": ["blades"]},
    "elves_fighter": {"weapons": ["blade"]},
    "humans_iron-mauler": {"build": ["well-built"], "clothing": ["black plate", "heavy armor"]},
    "undead_wraith": {},
    "humans_cavalryman": {"clothing": ["heavier armor"], "weapons": ["sword", "shield"]},
    "monsters_bear": {"build": ["large"], "features": ["sharp claws", "large teeth"]},
    "merfolk_netcaster": {"weapons": ["nets", "oar-like clubs"]},
    "undead_spectre": {},
    "elves_lady": {},
    "nagas_naga-ophidian": {"weapons": ["jarid", "small javelin"], "traits": ["amicable"]},
    "elves_sorceress": {},
    "monsters_stoat": {"features": ["icy-cold front claws"], "traits": ["devious"]},
    "trolls_troll-warrior": {"clothing": ["rough-shod armor"], "weapons": ["metal hammers"]},
    "monsters_giant-spider": {},
    "humans_heavy-infantry": {"build": ["brawny"], "clothing": ["full plate"]},
    "humans_thief-female": {"hair colour": ["pale blue"]},
}


def test_real_descriptions_as_a_reader_has_them(real_data):
    """Lore of a game, not wiki descriptions: the harder kind. Seven of the twenty are not wholly right."""
    rows = {}
    for row in (real_data / "persona" / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(row)
        rows[Path(record["file_name"]).stem] = check_line(record)
    pairs = [(flat_line(rows[name]), true) for name, true in REAL.items()]
    precision, recall = scores(pairs)
    assert precision >= 0.8 and recall >= 0.87
    assert sum(found == true for found, true in pairs) >= 13
