"""Embedding metrics against slow loops written from their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.metrics import embedding
from common.metrics.embedding import csls, pair_auc, retrieval_metrics


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (40,), generator=generator)
    vectors = torch.randn(5, 8, generator=generator)[labels] + torch.randn(40, 8, generator=generator)
    return vectors, labels


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


def test_per_class_values_average_to_the_whole(data):
    vectors, labels = data
    found = retrieval_metrics(vectors, labels, per_class=True)
    counts = labels.bincount().tolist()
    assert set(found["per_class"]) == set(labels.tolist())
    mean = sum(found["per_class"][label]["precision_at_1"] * counts[label] for label in range(5)) / 40
    assert math.isclose(mean, retrieval_metrics(vectors, labels)["precision_at_1"], abs_tol=1e-6)


def test_collapsed_model_scores_chance():
    labels = torch.arange(8).repeat_interleave(25)  # in order, as files on disk are
    found = retrieval_metrics(torch.ones(200, 4), labels)
    assert found["auc"] == 0.5 and found["precision_at_1"] < 0.3 and found["map_at_r"] < 0.1


def test_nothing_to_measure():
    assert retrieval_metrics(torch.randn(4, 2), torch.zeros(4)) == {}
    assert retrieval_metrics(torch.randn(4, 2), torch.arange(4)) == {}


def test_sampled_auc_is_close(data, monkeypatch):
    vectors, labels = data
    unit = F.normalize(vectors, dim=1).repeat(10, 1)
    exact = pair_auc(unit, labels.repeat(10))
    monkeypatch.setattr(embedding, "MAX_PAIRS", 50_000)
    assert abs(pair_auc(unit, labels.repeat(10)) - exact) < 0.02


def test_csls_against_its_formula():
    generator = torch.Generator().manual_seed(1)
    a, b, bank = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (3, 3, 20))
    found = csls((a * b).sum(1), a @ bank.T, b @ bank.T, k=4)
    for i in range(3):
        r = [sum(sorted((float(x @ m) for m in bank), reverse=True)[:4]) / 4 for x in (a[i], b[i])]
        assert math.isclose(float(found[i]), 2 * float(a[i] @ b[i]) - r[0] - r[1], abs_tol=1e-5)
