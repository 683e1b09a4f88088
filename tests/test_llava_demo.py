"""The demo of LLaVA: pretraining of its tower, its data, the report on its answers."""

import json

import pytest
from PIL import Image

from llava.config import PROMPTS
from llava.demo import SIDE, mean_recall, report_demo, write_demo_data


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """-> its folder, rows of test.jsonl, rows of train.jsonl"""
    folder = tmp_path_factory.mktemp("llava_world")
    write_demo_data(folder, 12)
    return folder, *(
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in ("test", "train")
    )


def test_unseen_scenes_are_unseen(world):
    folder, test, train = world
    texts, images = [row["text"] for row in test], {row["image"] for row in train}
    said = " ".join(turn["value"] for row in train for turn in row["conversations"])
    assert len(test) == 2 and len(images) == 10 and not images & {row["image"] for row in test}
    assert not any(text in said for text in texts) and len(train) == 40
    assert Image.open(folder / test[0]["image"]).size == (SIDE, SIDE)
    for row in test:
        assert len(row["keywords"]) == 2 and set(row["keywords"]) <= set(row["text"].replace(",", "").split())


def test_answers_are_true(world):
    _, _, train = world
    asked = [[turn["value"] for turn in row["conversations"]] for row in train]
    for first in range(0, len(asked), 4):
        (describe, caption), *questions = asked[first : first + 4]
        text = f"{caption[0].lower()}{caption[1:-1]}"
        assert describe.endswith(PROMPTS["en"]["describe"])
        assert [answer for _, answer in questions[:2]] == ["Yes", "No"]
        for question, answer in questions:
            fits = f'"{text}"' in question or f"Text: {text}\n" in question
            assert fits == (answer == "Yes" or answer.startswith("Score: 10\n"))
        assert questions[2][1].endswith(caption)


def test_the_demo_says_how_well_it_does(world, capsys):
    folder, rows, _ = world
    answered = [
        {
            "key": f"{number} {kind}",
            "image": row["image"],
            "text": row["text"] if good else "x",
            "description": row["text"].upper(),
            "score": 9 if good else 2,
            "expected_score": 5.0,
            "p_yes": 0.1 if good else 0.2,
        }
        for number, row in enumerate(rows)
        for kind, good in (("matching", True), ("other", False))
    ]
    report_demo(
        [*answered, {"key": "9 other", "image": "x", "text": "x", "error": "no such file"}], folder / "test.jsonl"
    )
    lines = capsys.readouterr().out.splitlines()
    examples, lines = lines[:-4], lines[-4:]
    assert f"right: {len(rows)} of {2 * len(rows)}" in examples[-1]  # P(Yes) is below a half for all
    shown = [line.split() for line in examples[1:-1]]
    assert [(words[-1], "not" in words) for words in shown[:2]] == [("WRONG", False), ("right", True)]
    assert len(shown) == 2 * len(rows)
    assert "AUC 1.000" in lines[0] and "AUC 0.500" in lines[1] and "AUC 0.000" in lines[2]
    assert "name 100%" in lines[3] and mean_recall(rows, ["nothing"] * len(rows)) == 0
