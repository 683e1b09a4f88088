"""Evaluation of answers: what is asked, how it is scored, and the baseline that sees no image."""

import json

import pytest
from PIL import Image

from vitp.evaluate import QuestionSample, evaluate, format_report, question_only_answers, read_samples


def sample(kind, reference, facts=()):
    return QuestionSample((), f"{kind}?", reference, kind, tuple(facts))


def test_scores():
    assert sample("colour", "red").score("red") == 1 and sample("colour", "red").score("red.") == 0
    described = sample("description", "A small red star.", ["small", "red", "star", "on a hill"])
    assert described.score("A small star, reddish, on a hill") == 0.75  # whole words
    assert described.score("") == 0
    assert described.score("Small star, red, on a hill") == 1  # a sentence begins with a capital letter


def test_the_baseline_is_what_is_most_frequent_for_a_kind():
    samples = [sample("colour", colour) for colour in ("red", "blue", "red")]
    samples += [sample("description", "", facts) for facts in (("small", "red"), ("large", "red"), ("large", "blue"))]
    assert question_only_answers(samples) == {"colour": "red", "description": "Large red"}


def test_report():
    samples = [sample("colour", "red"), sample("colour", "blue"), sample("kind", "star")]
    given = {"colour?": "red", "kind?": "star"}

    def predictor(requests, max_new_tokens):
        assert max_new_tokens == 7 and len(requests) <= 2
        return [given[question] for _, question in requests]

    report, answers = evaluate(predictor, samples, {"colour": "blue"}, batch_size=2, max_new_tokens=7)
    assert report["accuracy"] == pytest.approx(2 / 3) and report["question_only"] == pytest.approx(1 / 3)
    assert report["questions"]["colour"] == {"accuracy": 0.5, "question_only": 0.5, "count": 2}
    assert [row["answer"] for row in answers] == ["red", "red", "star"] and "colour" in format_report(report)
    assert "question_only" not in evaluate(predictor, samples, {}, 2, 7)[0]


def test_samples_of_a_file(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "x"}]
    records = [
        {"image": "a.png", "kind": "thing", "facts": ["x"], "conversations": turns * 2},
        {"image": "a.png", "conversations": turns},
        {"image": "gone.png", "conversations": turns},
        "nonsense",
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n{\n")
    samples, skipped = read_samples(path)
    assert [one.kind for one in samples] == ["thing", "What?"] and samples[0].facts == ("x",)
    assert samples[0].images == (tmp_path / "a.png",) and len(skipped) == 3
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="data.jsonl"):
        read_samples(path)
