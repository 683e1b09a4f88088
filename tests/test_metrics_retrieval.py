"""Retrieval metrics against loops written from their definitions, scikit-learn, and random models."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import coverage_error, top_k_accuracy_score

from common.metrics import retrieval
from common.metrics.retrieval import (
    chance_ranks,
    chance_recall,
    rank_both_ways,
    rank_scores,
    retrieval_scores,
    same_words,
    similarity_statistics,
)


def pairs(images=30, captions=3, width=8, noise=0.7, seed=0):
    """Captions near their image, of different numbers per image and out of order; a tenth share their words."""
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(images, width, generator=generator), dim=1)
    owners = torch.cat([torch.arange(images), torch.randint(images, (images * (captions - 1),), generator=generator)])
    owners = owners[torch.randperm(len(owners), generator=generator)]
    texts = F.normalize(vectors[owners] + noise * torch.randn(len(owners), width, generator=generator), dim=1)
    text_ids = torch.arange(len(owners)) + 100
    alike = torch.randperm(len(owners), generator=generator)[: len(owners) // 5]
    text_ids[alike] = text_ids[alike[torch.arange(len(alike)) // 2 * 2]]  # in twos
    return vectors, texts, owners, text_ids


def tied(images=20, width=3, seed=1):
    """Corners of a cube: most cosines are equal to many others."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.arange(images).repeat(2)
    corners = [torch.randint(2, (n, width), generator=generator).float() * 2 - 1 for n in (images, 2 * images)]
    return *[F.normalize(one, dim=1) for one in corners], owners, torch.arange(2 * images)


def slow_ranks(images, texts, owners, text_ids):
    """By the definition: one more than the false answers that score no less than the best true one."""
    true = [
        [any(owners[k] == i and text_ids[k] == text_ids[j] for k in range(len(texts))) for j in range(len(texts))]
        for i in range(len(images))
    ]
    score = [[float(image.double() @ text.double()) for text in texts] for image in images]

    def rank(scores, answers):
        best = max(one for one, right in zip(scores, answers) if right)
        return 1 + sum(one > best - 1e-6 for one, right in zip(scores, answers) if not right)

    columns = range(len(texts))
    return [rank(score[i], true[i]) for i in range(len(images))], [
        rank([row[j] for row in score], [row[j] for row in true]) for j in columns
    ]


@pytest.mark.parametrize("data", [pairs(), pairs(captions=1, seed=2), tied()], ids=["random", "one text", "tied"])
def test_ranks_against_the_double_loop(data):
    images, texts = rank_both_ways(*data)
    expected = slow_ranks(*data)
    assert (images.rank.tolist(), texts.rank.tolist()) == expected
    assert images.gallery == len(data[1]) and texts.gallery == len(data[0])
    for found, queries, gallery in ((images, data[0], data[1]), (texts, data[1], data[0])):
        scores = (queries @ gallery.T)[torch.arange(len(queries)), found.found]
        assert torch.allclose(scores, found.found_score, atol=1e-6)
        assert (found.found_score >= found.true_score - 1e-6).all()
        assert torch.equal(found.found_score[found.rank == 1], found.true_score[found.rank == 1])


def test_scores_by_hand():
    """Ranks 1, 2, 6 of images and 1, 1, 3, 11 of texts."""
    scores = rank_scores(torch.tensor([1, 2, 6]), torch.tensor([1, 1, 3, 11]))
    expected = {
        "i2t_r1": 100 / 3,
        "i2t_r5": 200 / 3,
        "i2t_r10": 100,
        "i2t_mean_rank": 3,
        "i2t_median_rank": 2,
        "t2i_r1": 50,
        "t2i_r5": 75,
        "t2i_r10": 75,
        "t2i_mean_rank": 4,
        "t2i_median_rank": 2,
        "rsum": 400,
    }
    assert scores.keys() == expected.keys()
    assert all(math.isclose(scores[name], expected[name]) for name in expected)


@pytest.mark.parametrize("data", [pairs(captions=1, images=60), tied()], ids=["random", "tied"])
def test_against_scikit_learn(data):
    """With one answer per query coverage_error is the mean rank, ties last; top_k_accuracy is recall without ties."""
    images, texts, owners, _ = data
    scores = retrieval_scores(images, texts, owners)
    cosine = (texts @ images.T).numpy().round(6)
    truth = F.one_hot(owners, len(images)).numpy()
    assert math.isclose(scores["t2i_mean_rank"], coverage_error(truth, cosine), rel_tol=1e-6)
    if len(owners) == len(images):
        for k in (1, 5, 10):
            accuracy = top_k_accuracy_score(owners.numpy(), cosine, k=k, labels=np.arange(len(images)))
            assert math.isclose(scores[f"t2i_r{k}"], 100 * accuracy, rel_tol=1e-6)


@pytest.mark.parametrize("data", [pairs(), tied()], ids=["random", "tied"])
def test_chunks_change_nothing(data, monkeypatch):
    whole = rank_both_ways(*data)

    def check(**arguments):
        for one, other in zip(whole, rank_both_ways(*data, **arguments)):
            for name in ("rank", "found", "true_count"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name

    for chunk in (1, 7, 64):
        check(chunk=chunk)
    monkeypatch.setattr(retrieval, "BLOCK_ELEMENTS", 50)  # less than one row of texts
    check()


def test_no_matrix_is_larger_than_a_chunk(monkeypatch):
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), kwargs=None):
            nonlocal largest
            result = function(*arguments, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    data = pairs(images=400, captions=2, width=4)
    with Watch():
        rank_both_ways(*data, chunk=16)
    assert 16 * 400 < largest <= 16 * 800
    monkeypatch.setattr(retrieval, "MAX_PAIRS", 5000)
    largest = 0
    with Watch():
        similarity_statistics(*data)
    assert 5000 <= largest <= 4 * 5000


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapsed_model_scores_no_more_than_chance(value):
    vectors = F.normalize(torch.full((50, 7), value), dim=1)
    for noise in (0, 1e-8):  # a rounding error away from the point
        generator = torch.Generator().manual_seed(0)
        images = vectors + noise * torch.randn(50, 7, generator=generator)
        scores = retrieval_scores(images, vectors, torch.arange(50))
        assert scores["rsum"] == 0 and scores["i2t_mean_rank"] == scores["t2i_median_rank"] == 50
        assert abs(scores["similarity_gap"]) < 1e-6


def test_random_vectors_score_about_chance():
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(n, 64, generator=generator), dim=1) for n in (400, 1200))
    owners = torch.arange(1200) % 400
    scores = retrieval_scores(images, texts, owners)
    three = chance_recall(torch.full((400,), 3), 1200, 10)
    assert math.isclose(three, 100 * (1 - math.comb(1197, 10) / math.comb(1200, 10)))
    assert abs(scores["i2t_r10"] - three) < 3 and abs(scores["t2i_r10"] - 2.5) < 2
    assert abs(scores["t2i_mean_rank"] - 200.5) < 15


def test_chance_against_drawn_orders():
    """30 in the gallery; queries with one, two and 25 true answers."""
    true_count, random = torch.tensor([1, 2, 25]), np.random.default_rng(0)
    ranks = [1 + min(random.permutation(30)[:true]) for true in (1, 2, 25) for _ in range(4000)]
    expected = rank_scores(torch.tensor(ranks), torch.tensor(ranks))
    for k in (1, 5, 10):
        assert abs(chance_recall(true_count, 30, k) - expected[f"i2t_r{k}"]) < 1.5
    assert chance_recall(true_count, 30, 29) == pytest.approx(100 * (1 - 1 / 90))
    assert chance_recall(true_count, 30, 30) == chance_recall(true_count, 30, 99) == 100
    mean, median = chance_ranks(true_count, 30)
    assert abs(mean - expected["i2t_mean_rank"]) < 0.3 and abs(median - expected["i2t_median_rank"]) <= 1


def test_perfect_model():
    scores = retrieval_scores(torch.eye(12), torch.eye(12), torch.arange(12))
    assert scores["rsum"] == 600 and scores["i2t_mean_rank"] == scores["t2i_median_rank"] == 1
    assert scores["positive_similarity"] == 1 and scores["negative_similarity"] == 0 and scores["similarity_gap"] == 1


def test_texts_of_the_same_words_are_no_misses():
    texts = ["A frog.", "a  frog. ", "A toad."]
    ids = same_words(texts)
    assert ids.tolist() == [0, 0, 1]
    vectors = torch.eye(3)[[0, 0, 1]]
    assert retrieval_scores(vectors, vectors, torch.arange(3))["t2i_r1"] == pytest.approx(100 / 3)
    scores = retrieval_scores(vectors, vectors, torch.arange(3), ids)
    assert scores["t2i_r1"] == scores["i2t_r1"] == pytest.approx(100)
    assert rank_both_ways(vectors, vectors, torch.arange(3), ids)[0].true_count.tolist() == [2, 2, 1]


@pytest.mark.parametrize("limit", [10**6, 500])
def test_similarities_against_the_double_loop(limit, monkeypatch):
    monkeypatch.setattr(retrieval, "MAX_PAIRS", limit)
    images, texts, owners, text_ids = data = pairs()
    found = similarity_statistics(*data, bins=20)
    own = [float(images[owners[j]] @ texts[j]) for j in range(len(texts))]
    words = [{int(text_ids[j]) for j in range(len(texts)) if owners[j] == i} for i in range(len(images))]
    false = [
        float(images[i] @ texts[j])
        for i in range(len(images))
        for j in range(len(texts))
        if int(text_ids[j]) not in words[i]
    ]
    assert math.isclose(found["positive_similarity"], np.mean(own), abs_tol=1e-6)
    assert found["positive_histogram"] == np.histogram(own, found["histogram_edges"])[0].tolist()
    if limit == 500:
        assert 400 < found["negative_pairs"] <= 500 and sum(found["negative_histogram"]) == found["negative_pairs"]
        assert abs(found["negative_similarity"] - np.mean(false)) < 0.05
    else:
        assert found["negative_pairs"] == len(false)
        assert math.isclose(found["negative_similarity"], np.mean(false), abs_tol=1e-6)
        assert found["negative_histogram"] == np.histogram(false, found["histogram_edges"])[0].tolist()
    assert math.isclose(found["similarity_gap"], found["positive_similarity"] - found["negative_similarity"])


def test_where_nothing_is_false():
    scores = retrieval_scores(torch.eye(2), torch.eye(2), torch.arange(2), torch.zeros(2))
    assert scores["rsum"] == 600 and "negative_similarity" not in scores and "similarity_gap" not in scores


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda i, t, o: (i * torch.nan, t, o), "image vectors: 4 of 4 are not finite"),
        (lambda i, t, o: (i, 30 * t, o), "text vectors: length 30"),
        (lambda i, t, o: (i, t[:, :2], o), r"expected \(N, D\) and \(M, D\)"),
        (lambda i, t, o: (i, t, o[:3]), "image_of_text: 3 numbers for 4 texts"),
        (lambda i, t, o: (i, t, o.clamp(max=2)), "every image of 0..3 to have a text"),
        (lambda i, t, o: (i, t, o + 1), "every image of 0..3 to have a text"),
    ],
)
def test_what_has_no_meaning_is_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        retrieval_scores(*spoil(torch.eye(4), torch.eye(4), torch.arange(4)))
