"""Scoring data: balanced pairs, texts that may fit after all, conversations and samples for evaluation."""

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from tiny.llava import write_pictures

from common.cli.errors import CommandLineError
from common.text.conversations import read_conversations
from llava.config import PROMPTS
from llava.eval_dataset import draw_negatives, read_samples
from llava.make_scoring_data import ANSWERS, SCORES, main
from llava.scoring_pairs import AnnotatedImage, draw_pairs

ANIMALS = ("cat", "dog", "owl", "fox")
TOOLS = ("saw", "axe", "awl", "rasp")


def drawn(copies=2):
    """`copies` images of each thing, with the keyword of its kind."""
    groups = {"animal": ANIMALS, "tool": TOOLS}
    return [
        AnnotatedImage(f"{number} {thing}.png", (thing, kind, f"a small {thing}"), (kind,))
        for kind, things in groups.items()
        for thing in things
        for number in range(copies)
    ]


def test_pairs_cannot_be_told_by_their_texts_or_their_images():
    images = drawn()
    pairs, unused = draw_pairs(images, 3, np.random.default_rng(0))
    texts, owners = defaultdict(Counter), defaultdict(Counter)
    for pair in pairs:
        texts[pair.text][pair.fits] += 1
        owners[pair.image][pair.fits] += 1
        assert pair.fits == images[pair.image].may_fit(pair.text)
    assert unused == 0 and len(pairs) == 2 * 3 * len(images)
    assert all(count[True] == count[False] for count in [*texts.values(), *owners.values()])
    assert not any(pair.is_hard for pair in pairs if pair.text in ("animal", "tool"))  # each of the group has it
    hard = [pair for pair in pairs if pair.is_hard]
    group_of = {text: image.groups for image in images for text in image.texts}
    assert len(hard) > 10 and all(group_of[pair.text] == images[pair.image].groups for pair in hard)
    distinct = [AnnotatedImage("a.png", ("cat",)), AnnotatedImage("b.png", ("a black cat",))]
    pairs, unused = draw_pairs(distinct, 1, np.random.default_rng(0))  # "cat" fits both, so nothing can be exchanged
    assert pairs == [] and unused == 2


@pytest.mark.parametrize(
    ("text", "fits"), [("Black CAT.", True), ("cats", False), ("黑猫", True), ("白猫", False), ("cat on a mat", False)]
)
def test_a_text_may_fit_whose_words_are_the_images_own(text, fits):
    assert AnnotatedImage("a.png", ("a black cat", "黑色的猫")).may_fit(text) == fits


@pytest.fixture
def table(tmp_path):
    """Six images in two groups; the last has no Chinese text, and a row names a missing image."""
    things = [("red star", "红星"), ("blue moon", "蓝月"), ("sun", "太阳"), ("oak", "橡树"), ("fir", "松"), ("elm", "")]
    with (tmp_path / "things.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "name_en", "keywords_en", "text_zh", "kind"])
        for number, (name, (english, chinese)) in enumerate(zip(write_pictures(tmp_path), things)):
            writer.writerow(
                [name, english, f"{english} drawing; thing {number}", chinese, "sky" if number < 3 else "tree"]
            )
        writer.writerow(["none.png", "x", "", "", "sky"])
    return tmp_path / "things.csv"


def test_conversations_of_both_languages(table, tmp_path):
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "scoring.jsonl"
    words = ["--language", "en", "zh", "--groups", "kind", "--turns", "4", "--allowed_share", "0.2"]
    summary = main([str(table), str(output), *words])
    assert list(summary["skipped"]) == [f"{table} line 8"] and summary["rows"] > 6
    conversations, skipped = read_conversations(output)  # whose images exist
    assert not skipped and max(len(conversation.turns) for conversation in conversations) == 4
    turns = Counter(turn.answer for conversation in conversations for turn in conversation.turns)
    assert turns["Yes"] == turns["No"] > 0 and turns["是"] == turns["否"] > 0
    asked = {turn.question.replace("<image>\n", ""): turn.answer for one in conversations for turn in one.turns}
    assert asked[PROMPTS["zh"]["describe"]] in ("红星", "蓝月", "太阳", "橡树", "松")
    stated = [answer for answer in asked.values() if answer.startswith(("Score: ", "评分："))]
    assert {answer.splitlines()[0][-1] for answer in stated} == set(map(str, SCORES.values()))
    assert any("not" in answer and "Analysis: It shows" in answer for answer in stated)
    again = output.read_bytes()
    main([str(table), str(output), *words])
    assert output.read_bytes() == again


def test_samples_for_evaluation_name_their_negatives(table, tmp_path):
    output = tmp_path / "test.jsonl"
    main([str(table), str(output), *"--language en --groups kind --evaluation --allowed_share 0.2".split()])
    samples, _ = read_samples(output)
    kinds = {"red star": "sky", "blue moon": "sky", "sun": "sky", "oak": "tree", "fir": "tree", "elm": "tree"}
    for sample in draw_negatives(samples, 1, 0):
        same, *_ = sample.negatives
        assert kinds[same] == kinds[sample.text] == sample.group and sample.text not in sample.negatives
    assert Counter(sample.negatives[0] for sample in samples) == Counter(list(kinds))


def test_mistakes(table, tmp_path):
    output = str(tmp_path / "out.jsonl")
    for words, message in (
        (["--language", "fr"], "--language"),
        (["--groups", "knid", "--allowed_share", "0.2"], "--groups"),
        (["--language", "en", "zh", "--evaluation"], "--evaluation"),
    ):
        with pytest.raises(ValueError, match=message):
            main([str(table), output, *words])
    (tmp_path / "bare.jsonl").write_text(json.dumps({"image": "0.png", "title": "x"}) + "\n")
    with pytest.raises(ValueError, match="no image with a text in 'en'"):
        main([str(tmp_path / "bare.jsonl"), output])
    with pytest.raises(CommandLineError, match="output"):
        main([str(table), str(table)])
    assert PROMPTS.keys() == ANSWERS.keys()
