"""BLEU and ROUGE: against counts by hand, the libraries' own tokens, and in Chinese."""

import math
from collections import Counter

import pytest
from rouge_score.tokenize import tokenize

from common.metrics.text import WordTokenizer, has_chinese, text_metrics


def test_equal_and_unrelated_texts():
    same = text_metrics(["A very small red frog."], [["A very small red frog."]])
    assert all(math.isclose(value, 100) for value in same.values())
    other = text_metrics(["A very small red frog."], [["Two trains in winter snow"]])
    assert other["rouge1"] == other["rouge2"] == other["rougeL"] == 0 and other["bleu"] < 10


def bleu(guess, true):
    """Papineni et al. 2002, section 2.3, for one pair of texts in which every n-gram order has a match."""
    guess, true, logarithm = guess.split(), true.split(), 0.0
    for n in range(1, 5):
        grams = [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (guess, true)]
        logarithm += math.log(sum((grams[0] & grams[1]).values()) / sum(grams[0].values())) / 4
    return 100 * math.exp(logarithm + min(0, 1 - len(true) / len(guess)))


def test_against_the_papers_formulas():
    guess, true = "a red fox runs over the hill", "the red fox runs over the green hill now"
    found = text_metrics([guess], [[true]])
    assert math.isclose(found["bleu"], bleu(guess, true))
    assert math.isclose(found["rouge1"], 100 * 2 * 6 / (7 + 9))  # red fox runs over the hill
    assert math.isclose(found["rouge2"], 100 * 2 * 4 / (6 + 8))  # red fox, fox runs, runs over, over the
    assert math.isclose(found["rougeL"], 100 * 2 * 6 / (7 + 9))


def test_the_best_of_several_references():
    found = text_metrics(["a red fox runs home", "a cow"], [["one", "a red fox runs home", "two"], ["a cow"]])
    assert math.isclose(found["rougeL"], 100) and math.isclose(found["bleu"], 100)


def test_chinese_is_compared_by_characters():
    found = text_metrics(["一只红色的青蛙"], [["一只绿色的青蛙"]])
    assert math.isclose(found["rouge1"], 100 * 6 / 7) and math.isclose(found["rouge2"], 100 * 4 / 6)
    assert math.isclose(found["bleu"], bleu(" ".join("一只红色的青蛙"), " ".join("一只绿色的青蛙")))
    assert WordTokenizer().tokenize("青蛙 RGB-24 カエル, café!") == [*"青蛙", "rgb", "24", *"カエル", "café"]
    assert has_chinese(["frog", "a 青 frog"]) and not has_chinese(["frog", "grenouille à café"])


def test_english_words_are_those_of_rouge_score():
    text = "The 2nd frog's well-known_name:  it's (GREEN), 3.5 cm!"
    assert WordTokenizer().tokenize(text) == tokenize(text, stemmer=None)


@pytest.mark.parametrize("hypotheses, references", [([], []), (["a"], []), (["a"], [[]])])
def test_missing_references_are_refused(hypotheses, references):
    with pytest.raises(ValueError, match="lists of references"):
        text_metrics(hypotheses, references)
