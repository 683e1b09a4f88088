"""Retrieval measures against loops written from their definitions, and what is left out of a list."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from common.vectors.feature_set import FeatureSet
from retrieval.evaluate_retrieval import read_labels
from retrieval.metrics import GroundTruth, LabelledImages, query_values, summarise


def images(labels, digests=None, paths=None, side="q"):
    count = len(labels)
    return LabelledImages(
        list(labels), digests or [f"{side}{n}" for n in range(count)], paths or [f"/{side}/{n}" for n in range(count)]
    )


def slow(ranked, right, top_k):
    """ranked: one query's gallery images, best first; right: the set of right ones."""
    values = {f"Top-{k}": float(any(one in right for one in ranked[:k])) for k in top_k}
    total = len(right)

    def precision(rank):
        return sum(one in right for one in ranked[:rank]) / rank

    hits = [rank for rank, one in enumerate(ranked, 1) if one in right]
    values["mAP"] = sum(precision(rank) for rank in hits) / total if total else 0.0
    values["R-precision"] = sum(one in right for one in ranked[:total]) / total if total else 0.0
    values["MAP@R"] = sum(precision(rank) for rank in hits if rank <= total) / total if total else 0.0
    return values


@pytest.mark.parametrize("depth", [30, 12])
def test_against_loops(depth):
    random = np.random.default_rng(0)
    query_labels, gallery_labels = random.choice(list("abcde"), 20), random.choice(list("abcd"), 30)
    ranked = np.stack([random.permutation(30) for _ in range(20)])
    truth = GroundTruth(images(query_labels), images(gallery_labels, side="g"))
    found = query_values(truth.relevant(ranked[:, :depth], depth), truth.true_count, [1, 3, 5])
    for query in range(20):
        right = {place for place in range(30) if gallery_labels[place] == query_labels[query]}
        assert truth.true_count[query] == len(right)
        expected = slow(ranked[query, :depth].tolist(), right, [1, 3, 5])
        assert found.keys() == expected.keys()
        assert all(math.isclose(found[name][query], expected[name]) for name in expected)


def test_average_precision_against_scikit_learn():
    relevant = np.random.default_rng(0).random((20, 30)) < 0.2
    relevant[0] = [False, True, True] + [False] * 27
    values = query_values(relevant, relevant.sum(1), [1])["mAP"]
    for row, value in zip(relevant, values):
        assert value == pytest.approx(average_precision_score(row, np.arange(30, 0, -1)))
    assert values[0] == pytest.approx(7 / 12)  # compute_ap in revisitop's evaluate.py, by trapezoids: 5 / 12


def test_an_image_is_not_its_own_answer():
    """Queries 0 and 1 are in the gallery by path; query 2 is there twice by its bytes, once under another label."""
    queries = images("aab", digests=["1", "2", "3"], paths=["/x", "/y", "/z"])
    gallery = images("aabcb", digests=["", "2", "3", "3", "9"], paths=["/x", "/y", "/other", "/third", "/fourth"])
    truth = GroundTruth(queries, gallery)
    assert truth.duplicates.tolist() == [1, 1, 2] and truth.true_count.tolist() == [1, 1, 1]
    ranked = np.array([[0, 1, 2, 3, 4], [1, 2, 0, 3, 4], [3, 2, 0, 4, 1]])
    relevant = truth.relevant(ranked, 3)
    assert relevant.tolist() == [[True, False, False], [False, True, False], [False, True, False]]
    late = truth.relevant(ranked[2:], 3, first=2)  # queries come in blocks
    assert late.tolist() == relevant[2:].tolist()


def test_images_without_digests_are_told_apart_by_path():
    truth = GroundTruth(images("ab", digests=["", ""]), images("ab", digests=["", ""], side="g"))
    assert truth.duplicates.tolist() == [0, 0] and truth.true_count.tolist() == [1, 1]


def test_both_denominators():
    """Class c is not in the gallery: it counts as a miss, or not at all."""
    truth = GroundTruth(images("abcc"), images("ab", side="g"))
    values = query_values(truth.relevant(np.array([[0, 1]] * 4), 2), truth.true_count, [1])
    report = summarise(values, truth, 2)
    assert report["Top-1"] == 0.25 and report["answerable"]["Top-1"] == 0.5 and report["coverage"] == 0.5
    assert report["mAP"] == pytest.approx(1.5 / 4) and report["answerable"]["mAP"] == pytest.approx(0.75)
    assert report["chance"]["Top-1"] == pytest.approx(0.25)
    low, high = report["interval_95"]["Top-1"]
    assert 0 <= low < 0.25 < high <= 1


def test_no_query_can_be_answered():
    truth = GroundTruth(images("cc"), images("ab", side="g"))
    report = summarise(query_values(truth.relevant(np.array([[0, 1]] * 2), 2), truth.true_count, [1]), truth, 2)
    assert report["coverage"] == 0 and report["answerable"]["mAP"] is None and report["Top-1"] == 0


def test_places_that_were_not_found_are_wrong():
    truth = GroundTruth(images("a"), images("aba", side="g"))  # -1 is not the last image
    assert truth.relevant(np.array([[1, 0, -1]]), 3).tolist() == [[False, True, False]]


def test_a_collapsed_model_scores_chance():
    """All cosines equal: the gallery's own order, classes one after the other as on a disk, answers everybody."""
    labels = [f"{n // 10}" for n in range(200)]
    truth = GroundTruth(images(labels), images(labels, side="g"))
    values = query_values(truth.relevant(np.tile(np.arange(200), (200, 1)), 200), truth.true_count, [1, 5])
    report = summarise(values, truth, 200)
    assert report["Top-1"] == pytest.approx(0.05) == report["chance"]["Top-1"] and report["MAP@R"] < 0.06


def features(paths, root=""):
    return FeatureSet([np.zeros((len(paths), 2))], paths, [""] * len(paths), {"image_dir": root} if root else {})


def test_labels_are_folders():
    assert read_labels(features(["/data/train/cat/a.jpg", "/data/train/deep/dog/b.jpg"], "/data/train")) == [
        "cat",
        "dog",
    ]
    assert read_labels(features(["train/cat/a.jpg"])) == ["cat"]  # an .npz of another program
    with pytest.raises(ValueError, match="/data/train/c.jpg: lies in no class folder below /data/train"):
        read_labels(features(["/data/train/c.jpg"], "/data/train"))


def test_labels_of_a_table(tmp_path):
    there = features(["/data/x/a.jpg", "/data/b, c.jpg"], "/data")
    tables = {
        "plain.tsv": "x/a.jpg\tcat\n./b, c.jpg\tdog\n",
        "named.csv": 'split,image,label\ntrain,x/a.jpg,cat\ntrain,"b, c.jpg",dog\n',
        "windows.csv": 'image;label;note\r\nx\\a.jpg;cat;"a;b"\r\nb, c.jpg;dog;\r\n',
        "whole.csv": '/data/x/a.jpg,cat\n"/data/b, c.jpg",dog\n',
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
        assert read_labels(there, tmp_path / name) == ["cat", "dog"], name
    (tmp_path / "short.csv").write_text("x/a.jpg,cat\n")
    with pytest.raises(ValueError, match="short.csv: no class for 1 of 2 images, the first: b, c.jpg"):
        read_labels(there, tmp_path / "short.csv")
    (tmp_path / "ragged.csv").write_text("x/a.jpg,cat\nb, c.jpg,dog\n")
    with pytest.raises(ValueError, match="ragged.csv line 2: 3 cells"):
        read_labels(there, tmp_path / "ragged.csv")
    (tmp_path / "one.tsv").write_text("x/a.jpg cat\n")
    with pytest.raises(ValueError, match="one.tsv: expected two columns.*separated by"):
        read_labels(there, tmp_path / "one.tsv")
    with pytest.raises(FileNotFoundError, match="none.csv: no such file"):
        read_labels(there, tmp_path / "none.csv")
