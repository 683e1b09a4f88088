"""VQA accuracy and official results: against the rules of the official evaluator."""

import json
from dataclasses import replace

import pytest

from benchmarks.doors.vqa_answers import by_annotators
from blip2_gated.metrics import Prediction, measure_answers, official_results
from blip2_gated.style_vocabulary import StyleVocabulary
from blip2_gated.vqa_tables import VqaSample
from common.metrics.vqa import RESTORED, most_frequent_answer, normalise_answer, vqa_accuracy


@pytest.mark.parametrize(
    "text, expected",
    [
        ("2.5", "2.5"),
        ("2.50 m.", "2.50 m"),
        ("u.s.", "us"),
        ("U.S. flag", "us flag"),
        ("1,000", "1000"),
        ("1,000 black-cats", "1000 blackcats"),  # after a comma between digits no sign leaves a space
        ("black-cats", "black cats"),
        ("black- cats", "black cats"),
        ("The two, black-cats!", "2 black cats"),
        ("a", ""),
        ("none", "0"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("Im", "im"),  # in the official table with a capital, which no word has at that point
        ("somebody'd", "somebodyd"),
        ("it's 5 o'clock: yes", "it's 5 o'clock: yes"),
        ("line\nends\tare spaces", "line ends are spaces"),
        (".5", ".5"),
        ("." * 33, "."),  # the first 32
        ("赤い猫。", "赤い猫。"),
    ],
)
def test_answers_are_normalised_as_officially(text, expected):
    assert normalise_answer(text) == expected


def test_the_official_table_of_contractions_has_its_size():
    """120 pairs, of which four have a capital and never match, and two change nothing."""
    assert len(RESTORED) == 114


def test_ten_answers_are_scored_by_leaving_each_annotator_out():
    ten = ["net"] * 3 + ["a net"] * 2 + ["mesh", "fence", "Net.", "two", "2"]
    for prediction, agreeing in (("net", 6), ("The net", 6), ("mesh", 1), ("2", 2), ("dog", 0)):
        by_hand = (agreeing * min((agreeing - 1) / 3, 1) + (10 - agreeing) * min(agreeing / 3, 1)) / 10
        assert vqa_accuracy(prediction, ten) == pytest.approx(by_hand) == pytest.approx(by_annotators(prediction, ten))


def test_answers_that_are_all_the_same_are_compared_as_they_are():
    """As officially; with fewer than four answers, which have no official score, everything is normalised."""
    assert [vqa_accuracy(text, ["black"] * 10) for text in ("black", " black\n", "Black.", "the black")] == [1, 1, 0, 0]
    assert [vqa_accuracy(text, ["black"]) for text in ("Black.", "the black", "white")] == [1, 1, 0]
    assert vqa_accuracy("2", ["two", "three", "four"]) == 1


def test_the_answer_to_train_on_is_the_most_frequent():
    assert most_frequent_answer(["no", "no", "no", "Yes", "yes", "yes", "yes."]) == "yes"
    assert most_frequent_answer(["a cat", "dog", "cat", "dogs"]) == "a cat"
    assert most_frequent_answer(["b", "a"]) == "b"


def official_check(results, annotated_ids):
    """What the official loader and evaluator ask of a results file, in our words."""
    assert isinstance(results, list) and all(isinstance(result["answer"], str) for result in results)
    assert {result["question_id"] for result in results} == set(annotated_ids)
    assert len(results) == len(annotated_ids)


def test_results_hold_every_question_once():
    samples = [
        VqaSample(number, "a.png", "How many?", "two", question_id=name)
        for number, name in enumerate((262148000, 262148001, 7, "n161", 7))
    ]
    predictions = [Prediction(sample, text) for sample, text in zip(samples[:1] + samples[2:], ("2", "3", "4", "5"))]
    results = json.loads(json.dumps(official_results(predictions, samples)))
    official_check(results, [262148000, 262148001, 7, "n161"])  # the second could not be asked, two share an id
    assert [result["answer"] for result in results] == ["2", "", "3", "4"]
    mixed = [replace(samples[0], question_id=1), replace(samples[1], question_id=None)]  # whose number is 1, too
    assert official_results([Prediction(mixed[1], "x")], mixed) == [{"question_id": 1, "answer": ""}]
    none = [replace(sample, question_id=None) for sample in samples]
    official_check(official_results([Prediction(none[3], "x")], none), range(5))


def test_the_report_says_what_is_official():
    styles = StyleVocabulary(None, [])
    ten = ("cat",) * 5 + ("dog", "a dog", "dogs", "fox", "the fox")
    sample = VqaSample(0, "a.png", "Which animal?", "cat", answers=ten)
    report = measure_answers([Prediction(sample, "Fox.")], styles, lambda question: "dog")
    assert report["all"]["vqa_accuracy"] == pytest.approx(100 * (2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert report["all"]["question_only"] == pytest.approx(100 * (2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert report["all"]["exact_match"] == 0 and report["all"]["rouge1"] == 100
    assert "official" in report["definitions"]["vqa_accuracy"]
    assert report["definitions"]["bleu"].startswith("nrefs:10|case:mixed|eff:yes|tok:13a|")
    assert Prediction(sample, "Fox.").as_row()["vqa_accuracy"] == pytest.approx(0.6)
