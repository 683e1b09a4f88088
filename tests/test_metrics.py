"""Embedding metrics against pytorch-metric-learning, scikit-learn, and slow loops written from their definitions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import roc_auc_score

from common.metrics import embedding, pair_auc
from common.metrics.bootstrap import bootstrap_weights
from common.metrics.embedding import content_conflict, csls, pair_products, retrieval_metrics


def draw(count, classes, width=8, seed=0, spread=1.0):
    """Unequal classes: each is a third rarer than the one before."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(1.5 ** -torch.arange(classes).float(), count, replacement=True, generator=generator)
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + spread * torch.randn(count, width, generator=generator), labels


@pytest.fixture
def data():
    return draw(40, 5)


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks of rows, of columns, and of the pairs' windows, for some dozens of vectors."""
    monkeypatch.setattr(embedding, "BLOCK_BYTES", 4 * 7 * 60)
    monkeypatch.setattr(pair_auc, "OTHER_COLUMNS", 10**6)


def slow(vectors, labels):
    unit = F.normalize(vectors, dim=1)
    wins = total = 0.0
    pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
    same = [float(unit[i] @ unit[j]) for i, j in pairs if labels[i] == labels[j]]
    other = [float(unit[i] @ unit[j]) for i, j in pairs if labels[i] != labels[j]]
    for a in same:
        for b in other:
            wins += (a > b) + 0.5 * (a == b)
            total += 1
    first, precision = [], []
    for i in range(len(labels)):
        ranked = sorted((j for j in range(len(labels)) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        relevant = sum(int(labels[j] == labels[i]) for j in ranked)
        if not relevant:
            continue
        first.append(float(labels[ranked[0]] == labels[i]))
        hits, summed = 0, 0.0
        for position, j in enumerate(ranked[:relevant], 1):
            if labels[j] == labels[i]:
                hits += 1
                summed += hits / position
        precision.append(summed / relevant)
    return {"auc": wins / total, "precision_at_1": sum(first) / len(first), "map_at_r": sum(precision) / len(precision)}


def test_against_slow_loops(data):
    found, expected = retrieval_metrics(*data), slow(*data)
    for name, value in expected.items():
        assert math.isclose(found[name], value, abs_tol=1e-6), name


@pytest.mark.parametrize("duplicates", [1, 3])
def test_against_metric_learning(duplicates, small_blocks):
    """Unequal classes, one of them a single vector; with duplicates, whose similarities to all others are equal."""
    vectors, labels = draw(180 // duplicates, 9, width=12, seed=3)
    vectors, labels = vectors.repeat(duplicates, 1), labels.repeat(duplicates)
    vectors, labels = torch.cat([vectors, vectors[:1] + 1]), torch.cat([labels, torch.tensor([77])])
    names = {"precision_at_1": "precision_at_1", "mean_average_precision_at_r": "map_at_r"}
    options = {"include": tuple(names), "k": "max_bin_count", "device": torch.device("cpu")}
    found, unit = retrieval_metrics(vectors, labels, per_class=True), F.normalize(vectors, dim=1)
    whole = AccuracyCalculator(**options).get_accuracy(unit, labels)
    classes = AccuracyCalculator(**options, return_per_class=True).get_accuracy(unit, labels)
    for theirs, ours in names.items():
        assert found[ours] == pytest.approx(whole[theirs], abs=1e-6)
        assert [values[ours] for values in found["per_class"].values()] == pytest.approx(classes[theirs], abs=1e-6)
    similarity, same = (unit.double() @ unit.double().T).round(decimals=7), labels[:, None] == labels
    upper = torch.ones_like(same).triu(1)
    assert found["auc"] == pytest.approx(roc_auc_score(same[upper], similarity[upper]), abs=2e-5)
    assert 77 not in found["per_class"]


def test_auc_of_a_class():
    vectors, labels = draw(90, 6)
    found, unit = retrieval_metrics(vectors, labels, per_class=True), F.normalize(vectors, dim=1)
    for label, values in found["per_class"].items():
        rows = (labels == label).nonzero().flatten()
        similarity = unit[rows] @ unit.T
        similarity[torch.arange(len(rows)), rows] = math.nan
        counted = ~similarity.isnan()
        expected = roc_auc_score((labels == label).expand_as(counted)[counted], similarity[counted])
        assert values["auc"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_blocks_leave_the_values_and_the_vectors_alone(data, kind, small_blocks):
    vectors, labels = 3 * data[0].to(kind), data[1]
    before = vectors.clone()
    found, expected = retrieval_metrics(vectors, labels), slow(vectors.float(), labels)
    assert torch.equal(vectors, before)
    assert found == pytest.approx(expected, abs=1e-6)


def test_resampled_auc_by_a_slow_loop(data):
    """A resample holds each class as often as it was drawn, without pairs of a class with its own copies as others."""
    vectors, labels = data
    unit, same = F.normalize(vectors, dim=1), labels[:, None] == labels
    histograms = pair_auc.PairHistograms(labels, 5)
    histograms.add(0, (unit @ unit.T).fill_diagonal_(-math.inf))
    expected, upper = [], torch.ones_like(same).triu(1)
    for drawn in next(bootstrap_weights(5))[:40]:
        times = torch.from_numpy(drawn)[labels]
        weights = torch.where(same, times[:, None], times[:, None] * times)[upper]
        if len(set(labels[times > 0].tolist())) > 1:
            expected.append(roc_auc_score(same[upper], (unit @ unit.T)[upper], sample_weight=weights))
    assert histograms.resampled_auc()[: len(expected)] == pytest.approx(expected, abs=2e-3)


def test_intervals_hold_the_truth():
    """Of samples of 12 classes from one population, most 95 % intervals hold the value of very many classes."""

    def population(classes, seed):
        generator = torch.Generator().manual_seed(seed)
        spread = 0.3 + 1.2 * torch.rand(classes, 1, 1, generator=generator)
        centres = torch.randn(classes, 1, 6, generator=generator)
        vectors = (centres + spread * torch.randn(classes, 10, 6, generator=generator)).flatten(0, 1)
        return vectors, torch.arange(classes).repeat_interleave(10)

    truth = retrieval_metrics(*population(200, 0))["auc"]
    intervals = [retrieval_metrics(*population(12, seed), per_class=True)["interval"]["auc"] for seed in range(1, 21)]
    assert sum(low <= truth <= high for low, high in intervals) >= 17
    assert np.mean([high - low for low, high in intervals]) < 0.25


def test_intervals_of_classes_not_of_images():
    """Ten copies of each image tell nothing new about other classes."""
    vectors, labels = draw(120, 8, spread=2.0)
    few = retrieval_metrics(vectors, labels, per_class=True)
    many = retrieval_metrics(vectors.repeat(5, 1), labels.repeat(5), per_class=True)
    for name, (low, high) in few["interval"].items():
        assert low <= few[name] <= high, name
    width = [part["interval"]["auc"][1] - part["interval"]["auc"][0] for part in (few, many)]
    assert width[1] > 0.8 * width[0]
    assert "interval" not in retrieval_metrics(vectors, labels.clamp(max=3), per_class=True)  # too few to resample


def test_more_classes_than_groups():
    vectors, labels = draw(600, 5)
    labels = labels * 40 + torch.arange(600) % 40  # 200 classes
    found = retrieval_metrics(vectors, labels, per_class=True)
    assert len(found["per_class"]) > 100 and found["interval"].keys() == found["per_class"][0].keys()
    for name, (low, high) in found["interval"].items():
        assert low <= found[name] <= high and high - low < 0.3, name


def test_collapsed_model_scores_chance():
    labels = torch.arange(8).repeat_interleave(25)  # in order, as files on disk are
    found = retrieval_metrics(torch.ones(200, 4), labels)
    assert found["auc"] == 0.5 and found["precision_at_1"] < 0.3 and found["map_at_r"] < 0.1


def test_nothing_to_measure():
    assert retrieval_metrics(torch.randn(4, 2), torch.zeros(4)) == {}
    assert retrieval_metrics(torch.randn(4, 2), torch.arange(4)) == {}


def test_a_diverged_model_is_named(data):
    data[0][3, 2] = math.nan
    with pytest.raises(ValueError, match="1 of 40 vectors"):
        retrieval_metrics(*data)


def test_auc_of_a_moving_window_is_close(monkeypatch):
    vectors, labels = draw(800, 5)
    exact = retrieval_metrics(vectors, labels)
    monkeypatch.setattr(pair_auc, "OTHER_COLUMNS", 64)
    monkeypatch.setattr(embedding, "BLOCK_BYTES", 4 * 800 * 16)
    windowed = retrieval_metrics(vectors, labels)
    assert 0 < abs(windowed["auc"] - exact["auc"]) < 0.01
    assert windowed["map_at_r"] == pytest.approx(exact["map_at_r"], abs=1e-6)


def test_csls_against_its_formula():
    generator = torch.Generator().manual_seed(1)
    a, b, bank = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (3, 3, 20))
    found = csls((a * b).sum(1), a @ bank.T, b @ bank.T, k=4)
    for i in range(3):
        r = [sum(sorted((float(x @ m) for m in bank), reverse=True)[:4]) / 4 for x in (a[i], b[i])]
        assert math.isclose(float(found[i]), 2 * float(a[i] @ b[i]) - r[0] - r[1], abs_tol=1e-5)


def test_retrieval_by_csls(data, small_blocks):
    """The gallery is the bank: similarities as csls gives them, where no image is its own neighbour."""
    vectors, labels = data
    unit, order = F.normalize(vectors, dim=1), torch.randperm(40)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    expected = csls(cosines, cosines[:, None].expand(-1, 40, -1), cosines.expand(40, -1, -1), k=4)
    hubness = embedding.mean_neighbour_similarity(vectors, order, 4)
    found = torch.cat([block for _, block in embedding.similarity_blocks(vectors, order, hubness)])
    off = ~torch.eye(40, dtype=torch.bool)
    torch.testing.assert_close(found[off], expected[order][:, order][off], atol=1e-5, rtol=0)
    assert retrieval_metrics(vectors, labels, csls_k=4)["map_at_r"] != retrieval_metrics(vectors, labels)["map_at_r"]


def test_content_conflict_by_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    styles, contents = (ids.flatten() for ids in torch.meshgrid(torch.arange(6), torch.arange(4), indexing="ij"))
    vectors = torch.randn(6, 5, generator=generator)[styles] + torch.randn(4, 5, generator=generator)[contents]
    vectors += 0.3 * torch.randn(24, 5, generator=generator)
    unit, wins, total = F.normalize(vectors, dim=1), 0.0, 0
    for i in range(24):
        for j in range(24):
            for k in range(24):
                if j != i and styles[j] == styles[i] and k != i and contents[k] == contents[i]:
                    wins += float(unit[i] @ unit[j] > unit[i] @ unit[k])
                    total += 1
    found = content_conflict(vectors, styles, contents)
    assert found["conflict"] == pytest.approx(wins / total, abs=0.01)
    assert found["conflict_interval"][0] < found["conflict"] < found["conflict_interval"][1]
    assert content_conflict(styles[:, None] * torch.ones(5) + 1, styles, contents)["conflict"] == 0.5  # all alike
    assert content_conflict(F.one_hot(styles).float(), styles, contents)["conflict"] == 1
    assert content_conflict(vectors, styles, torch.arange(24)) == {}  # no content in two styles


def test_pair_products_of_wide_vectors(monkeypatch):
    monkeypatch.setattr(embedding, "PAIR_BYTES", 1)  # a pair at a time
    first, second = torch.randn(5, 3), torch.randn(6, 3)
    i, j = torch.tensor([4, 0, 4]), torch.tensor([5, 1, 0])
    torch.testing.assert_close(pair_products(first, second, i, j), (first @ second.T)[i, j])
    assert pair_products(first, second, i[:0], j[:0]).shape == (0,)
