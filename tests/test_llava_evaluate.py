"""Evaluation of LLaVA: each metric against a slow reference, and the whole script on a tiny model."""

import html
import json
import re
from contextlib import nullcontext
from itertools import product
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from tiny.llava import write_llava, write_pictures, write_sentence_encoder

from llava import evaluate
from llava.analysis import ServerGone
from llava.analyzer import LlavaAnalyzer
from llava.eval_dataset import draw_negatives, read_samples
from llava.metrics import keyword_hits, rank_agreement, recall_at, score_quality
from llava.report import escape
from llava.report_pictures import worst_judgements
from llava.sentence_encoder import SentenceEncoder
from llava.traits import extract_traits, trait_accuracy


def test_auc_is_the_share_of_right_pairs():
    random = np.random.default_rng(0)
    scores = random.integers(1, 11, 60).tolist()
    matching = (random.random(60) < 0.4).tolist()
    found = score_quality([*scores, None], [*matching, True])
    pairs = [
        (good > bad) + 0.5 * (good == bad)
        for (good, yes), (bad, no) in product(zip(scores, matching), repeat=2)
        if yes and not no
    ]
    assert found["auc"] == pytest.approx(np.mean(pairs)) and found["without_score"] == 1 and found["pairs"] == 60
    assert found["spearman"] == pytest.approx(spearmanr(scores, matching).statistic)
    rows = random.integers(60, size=60)
    times = np.bincount(rows, minlength=60)[None]
    auc, spearman = rank_agreement(np.array(scores, float), np.array(matching), times)
    drawn, match = np.array(scores)[rows], np.array(matching)[rows]
    assert auc[0] == pytest.approx(roc_auc_score(match, drawn))
    assert spearman[0] == pytest.approx(spearmanr(drawn, match).statistic)
    low, high = found["interval"]
    assert low < found["auc"] < high and found["spearman_interval"][0] < found["spearman"]


def test_score_quality_at_its_limits():
    perfect = score_quality([9, 8, 2, 1], [True, True, False, False])
    assert perfect["auc"] == 1 and perfect["interval"][1] == 1 and perfect["interval"][0] < 0.7
    assert score_quality([1, 2], [True, True])["auc"] is None
    assert score_quality([5, 5, 5, 5], [True, False] * 2)["auc"] == 0.5
    assert score_quality([None, None], [True, False])["pairs"] == 0


def test_intervals_come_from_images_not_pairs():
    """Copies of the same pairs are no new evidence."""
    random = np.random.default_rng(1)
    scores, match, owner = random.normal(size=40), np.arange(40) % 2 == 0, np.arange(40) // 2
    once = score_quality(scores, match, owner)
    copied = score_quality(np.tile(scores, 5), np.tile(match, 5), np.tile(owner, 5))
    wrong = score_quality(np.tile(scores, 5), np.tile(match, 5))
    width = {
        name: np.subtract(*one["interval"][::-1])
        for name, one in {"once": once, "copied": copied, "wrong": wrong}.items()
    }
    assert width["copied"] == pytest.approx(width["once"]) and width["wrong"] < 0.7 * width["once"]


def test_keywords_are_whole_words():
    text = "A Cat, two  red\nstars; 一只猫在草地上."
    assert keyword_hits(text, ["cat", "CATS", "red stars", "star", "猫", "a"]) == [True, False, True, False, True, True]
    assert keyword_hits("c++ and co-op", ["c++", "co", "op"]) == [True, True, True]
    scripts = "고양이가 있다, की, ภาษาไทย"
    assert keyword_hits(scripts, ["고양이", "양이", "क", "ไทย"]) == [True, False, False, True]
    assert recall_at(text, ["cat", "dog", "猫"], 1) == 1 and recall_at(text, ["cat", "dog", "猫"], 5) == pytest.approx(
        2 / 3
    )
    assert recall_at(text, [], 5) is None


def test_traits_are_read_off_a_text():
    found = extract_traits("Mira has long silver hair and blue eyes, wears a red hat. Cheerful and open.")
    assert found == {"hair colour": "silver", "hair length": "long", "eye colour": "blue", "temperament": "cheerful"}
    assert extract_traits("Her hair is short and golden; eyes are dark green.")["hair colour"] == "blonde"
    assert extract_traits("a man in a black coat with brown hair")["hair colour"] == "brown"
    assert extract_traits("two stars") == {}


def test_accuracy_counts_silence_as_wrong():
    said = [{"eye colour": "blue"}, {}, {"eye colour": "red"}, {"eye colour": "blue"}]
    true = [{"eye colour": "blue"}, {"eye colour": "blue"}, {"eye colour": "blue"}, {}]
    found = trait_accuracy(said, true)["eye colour"]
    assert found["accuracy"] == pytest.approx(1 / 3) and found["predicted"] == pytest.approx(2 / 3)
    assert found["samples"] == 3 and found["most_common"] == 1


def test_mismatching_texts_are_other_words_of_other_images(tmp_path):
    write_pictures(tmp_path, 3)
    rows = [{"image": f"{n % 3}.png", "text": f"text {n % 4}"} for n in range(8)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples, _ = read_samples(tmp_path / "s.jsonl")
    drawn = draw_negatives(samples, 2, seed=0)
    owners = {(sample.image, sample.text) for sample in samples}
    for sample in drawn:
        assert len(set(sample.negatives)) == 2 and sample.text not in sample.negatives
        for negative in sample.negatives:
            assert any(text == negative and image != sample.image for image, text in owners)
    assert drawn == draw_negatives(samples, 2, seed=0)
    with pytest.raises(ValueError, match="--num_negatives"):
        draw_negatives(samples, 9, seed=0)


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory):
    return write_sentence_encoder(tmp_path_factory.mktemp("sentences"))


def test_sentence_vectors_ignore_padding(sentence_encoder):
    encoder = SentenceEncoder(str(sentence_encoder))
    texts = ["a star", "a red star on a beach and a beach"]
    together, alone = encoder.encode(texts), torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert encoder.cosines(texts, texts) == pytest.approx([1, 1], abs=1e-5)


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_pictures(folder, 5)
    rows = [
        {
            "image": f"{n}.png",
            "text": f"a red star {n}",
            "reference": [f"a star {n}", "a beach"],
            "keywords": ["star", "beach"],
            "group": "even" if n % 2 == 0 else "odd",
            "traits": {"eye colour": "blue"},
        }
        for n in range(5)
    ]
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"image": "absent.png"}]))
    return folder / "s.jsonl"


def test_the_whole_evaluation_at_two_batch_sizes(samples, sentence_encoder, tmp_path, capsys):
    folder = write_llava(tmp_path / "model")
    given = [
        "--model_id",
        str(folder),
        "--device",
        "cpu",
        "--data",
        str(samples),
        "--description_tokens",
        "6",
        "--analysis_tokens",
        "6",
        "--sentence_encoder",
        str(sentence_encoder),
        "--num_negatives",
        "2",
    ]
    found = evaluate.main([*given, "--output_dir", str(tmp_path / "a"), "--batch_size", "1"])
    shown = capsys.readouterr()
    assert "AUC of expected_score" in shown.out and "absent.png" in shown.err
    again = evaluate.main([*given, "--output_dir", str(tmp_path / "b"), "--batch_size", "7"])
    assert found["samples"] == 5 and found["pairs"] == 15 and set(found["groups"]) == {"even", "odd"}
    for name in found:
        if name not in ("setup", "groups"):
            flat = [json.dumps(one[name], sort_keys=True) for one in (found, again)]
            assert flat[0] == flat[1] or found[name] == pytest.approx(again[name], rel=1e-4), name
    assert found["recall_at_5"]["value"] >= 0 and found["traits"]["eye colour"]["samples"] == 5 and "rougeL" in found
    lines = [json.loads(line) for line in (tmp_path / "a" / "per_sample.jsonl").read_text().splitlines()]
    assert len(lines) == 15 and sum(line["matching"] for line in lines) == 5 and "cosine" in lines[0]
    report = (tmp_path / "a" / "report.md").read_text()
    facts = json.loads((tmp_path / "a" / "summary.json").read_text())["setup"]
    assert (
        facts["weights"] in report
        and "transformers" in report
        and "Describe this image" in report
        and facts["seed"] == 0
    )
    for name in ("scores.png", "groups.png", "worst.png"):
        assert min(Image.open(tmp_path / "a" / name).size) > 150 and f"]({name})" in report
    links = re.findall(r"\]\(<(.*?)>\)", report)
    assert len(links) == 5 and all((tmp_path / "a" / unquote(link)).is_file() for link in links)


def test_an_interrupted_evaluation_is_resumed(samples, tmp_path, capsys, monkeypatch):
    """Three results were there: their pairs are not asked for again, and the report is that of one start. Those of
    other settings stay apart."""
    model, folder = write_llava(tmp_path / "model"), tmp_path / "out"
    given = (
        f"--model_id {model} --device cpu --data {samples} --description_tokens 4 --analysis_tokens 4 --batch_size 1"
    )
    whole = evaluate.main([*given.split(), "--output_dir", str(tmp_path / "whole")])
    analyze_many = LlavaAnalyzer.analyze_many
    asked = []

    def until(stop):
        def analyze(self, pairs):
            asked.append(len(pairs))
            for number, found in enumerate(analyze_many(self, pairs, quiet=True)):
                if number == stop:
                    raise ServerGone("3 pairs in a row failed")
                yield found

        return analyze

    for stop, flags in ((3, ""), (2, "--language zh"), (None, "")):
        monkeypatch.setattr(LlavaAnalyzer, "analyze_many", until(stop))
        with nullcontext() if stop is None else pytest.raises(ServerGone):
            found = evaluate.main([*given.split(), *flags.split(), "--output_dir", str(folder)])
    assert asked == [10, 10, 7] and "3 of 10 results are kept" in capsys.readouterr().err
    assert {**found, "setup": 0} == {**whole, "setup": 0}
    rows = [(part / "per_sample.jsonl").read_text().splitlines() for part in (folder, tmp_path / "whole")]
    assert [{**json.loads(row), "seconds": 0} for row in rows[0]] == [
        {**json.loads(row), "seconds": 0} for row in rows[1]
    ]
    assert len(list(folder.glob("unfinished_*"))) == 1  # the Chinese one


def test_the_worst_answers_come_first():
    scores = {"a": (9, 2, 3), "b": (1, 4, 8), "c": (5, 5, None)}
    rows = [
        {"key": key, "text": f"{key}{number}", "matching": number == 0, "expected_score": value}
        for key, values in scores.items()
        for number, value in enumerate(values)
    ]
    judged = worst_judgements(rows, "expected_score")
    assert [(one.margin, one.matching["text"], one.other["text"]) for one in judged] == [
        (-7, "b0", "b2"),
        (0, "c0", "c1"),
        (6, "a0", "a2"),
    ]
    assert [one.margin for one in worst_judgements(rows[:1], "expected_score")] == [9]


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "![a](http://b/c.png) [d](javascript:e)", "a | b `c` *d*\n\n# e"]
)
def test_words_of_data_are_no_markup(text):
    render = pytest.importorskip("markdown_it").MarkdownIt("commonmark").render
    words = html.escape(" ".join(text.split()), quote=True).replace("&#x27;", "'")
    assert render(escape(text)).replace("&quot;", '"') == f"<p>{words}</p>\n".replace("&quot;", '"')


def test_bad_data_is_one_line(samples, tmp_path):
    for given, words in (
        ([], "--data"),
        (["--data", "none.jsonl"], "no such file"),
        (["--data", str(samples), "--sentence_encoder", str(tmp_path)], "sentence_encoder"),
        (["--data", str(samples), "--num_negatives", "9"], "num_negatives"),
    ):
        with pytest.raises((ValueError, OSError), match=words) as caught:
            evaluate.main(given)
        assert len(str(caught.value).splitlines()) == 1
