"""BLEU and ROUGE: against counts by hand, the libraries' own numbers and tokens, in many scripts."""

import math
from collections import Counter
from random import Random

import pytest
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU

from common.metrics.text import WordTokenizer, bleu_tokenizers, has_chinese, text_metric_settings, text_metrics

WORDS = {
    "13a": ("the red cats run in snow. of 3.5 U.S. don't".split(), " "),
    "ja-mecab": ("赤い 猫 が 雪 で 遊ぶ カエル です 。".split(), ""),
    "zh": ([*"一只红色的青蛙在雪地里玩，坐着。"], ""),
}


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


@pytest.mark.parametrize("tokenizer", WORDS)
@pytest.mark.parametrize("count", [1, 3])
def test_sets_of_one_language_score_as_sacrebleu_says(tokenizer, count):
    random, (words, space) = Random(0), WORDS[tokenizer]
    texts = [space.join(random.choices(words, k=random.randint(2, 14))) for _ in range(40 * (count + 1))]
    said, references = texts[:40], [[f"{text}{words[-2]}" for text in texts[start::40][1:]] for start in range(40)]
    bleu = BLEU(tokenize=tokenizer)
    expected = bleu.corpus_score(said, [list(column) for column in zip(*references)]).score
    assert text_metrics(said, references)["bleu"] == pytest.approx(expected) and expected > 0
    signature = str(bleu.get_signature()).replace("eff:no", "eff:yes")  # the same wherever a text has four tokens
    assert text_metric_settings(references)["bleu"] == signature


def test_equal_texts_of_fewer_than_four_tokens_score_100():
    assert text_metrics(["猫です", "red"], [["猫です"], ["red"]])["bleu"] == pytest.approx(100)


def test_each_text_of_a_set_has_the_tokenizer_of_its_script():
    texts = [["a cat"], ["猫です", "a cat"], ["고양이"], ["แมว"], ["赤猫"]]
    assert bleu_tokenizers(texts) == ["13a", "ja-mecab", "char", "char", "zh"]
    assert bleu_tokenizers([["東京"], ["猫です"], ["カエル"]]) == ["ja-mecab"] * 3  # kanji alone, in a Japanese set
    assert "|tok:13a+char+ja-mecab-0.996-IPA+zh|" in text_metric_settings(texts)["bleu"]
    assert text_metric_settings(texts)["bleu"].startswith("nrefs:var|")


def test_no_sign_of_a_word_is_dropped():
    """Vowel signs and accents are no letters for `re`, and emoji no words."""
    assert WordTokenizer().tokenize("हिन्दी cafe\u0301 𠮷野 ー々") == ["हिन्दी", "cafe\u0301", *"𠮷野ー々"]
    assert text_metrics(["की"], [["का"]])["rouge1"] == 0 and text_metrics(["🙂"], [["🙂"]])["rouge1"] == 100
    assert text_metrics(["", "a"], [["a"], [""]]) == {"bleu": 0, "rouge1": 0, "rouge2": 0, "rougeL": 0}
