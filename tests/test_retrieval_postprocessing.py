"""Post-processing of retrieval: each method against a slow one written from its paper."""

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA

from common.vectors.faiss_index import build_index
from common.vectors.shards import l2_normalize
from retrieval.ranking import Postprocessing, Ranker, expand, find_neighbours, fit_whitening
from retrieval.reranking import Diffusion, KReciprocal, conjugate_gradients


def clusters(count=60, width=8, kinds=6, seed=0, noise=0.6):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((kinds, width))
    return l2_normalize(centres[np.arange(count) % kinds] + noise * random.standard_normal((count, width)))


@pytest.fixture
def gallery():
    return clusters()


@pytest.fixture
def queries():
    return clusters(9, seed=1, kinds=6)


def exact(gallery):
    return build_index(lambda: iter([gallery]), *gallery.shape, "exact")


@pytest.mark.parametrize("width", [0, 5])
def test_whitening_against_scikit_learn(gallery, queries, width):
    whiten, kept = fit_whitening(gallery, width)
    assert kept == (width or 8)
    pca = PCA(width or None, whiten=True, svd_solver="full").fit(gallery)
    expected = l2_normalize(pca.transform(queries))
    # Directions have no sign: cosines do not change with it.
    cosines = expected @ l2_normalize(pca.transform(gallery)).T
    np.testing.assert_allclose(whiten(queries) @ whiten(gallery).T, cosines, atol=1e-4)


def test_whitening_keeps_what_varies_alone(gallery):
    flat = np.concatenate([gallery, np.full((60, 1), 3.0), gallery[:, :1]], 1).astype(np.float32)
    assert fit_whitening(flat)[1] == 8 and fit_whitening(flat)[0](flat).shape == (60, 8)
    assert fit_whitening(gallery[:4])[1] == 3  # fewer images than dimensions
    with pytest.raises(ValueError, match="--pca_whiten 9: the 60 gallery vectors vary in 8 directions only"):
        fit_whitening(flat, 9)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_query_expansion_against_a_loop(gallery, queries, alpha):
    scores, places = exact(gallery).search(queries, 5)
    found = expand(queries, gallery, scores, places, alpha)
    for query, result in zip(queries, found):
        cosines = [float(query @ one) for one in gallery]
        nearest = sorted(range(60), key=lambda j: -cosines[j])[:5]
        total = query.astype(float).copy()
        for j in nearest:
            total += max(cosines[j], 0) ** alpha * gallery[j]
        np.testing.assert_allclose(result, total / np.linalg.norm(total), atol=1e-5)


def test_database_augmentation_against_a_loop(gallery):
    found = expand(gallery, gallery, *find_neighbours(gallery, exact(gallery), 3))
    for i in range(60):
        cosines = [float(gallery[i] @ one) for one in gallery]
        nearest = sorted((j for j in range(60) if j != i), key=lambda j: -cosines[j])[:3]
        total = gallery[i] + sum(max(cosines[j], 0) ** 3 * gallery[j] for j in nearest)
        np.testing.assert_allclose(found[i], total / np.linalg.norm(total), atol=1e-5)


def test_neighbours_leave_the_vector_itself_out(gallery):
    copies = np.concatenate([gallery, np.repeat(gallery[:1], 7, 0)])  # itself may not be among its first 4
    scores, places = find_neighbours(copies, exact(copies), 3)
    assert not (places == np.arange(67)[:, None]).any() and places.shape == (67, 3)
    assert (np.diff(scores) <= 0).all()


def slow_reciprocal(query, gallery, k1, k2, weight):
    """Zhong et al. 2017, equations 1 to 12, in sets and loops, with the authors' normalisation of distances and
    encodings; the query is not in the gallery."""
    count = len(gallery)

    def distances(probe):
        row = [1 - float(probe @ vector) for vector in gallery]
        return [value / max(row) for value in row]

    def ranking(probe, skip=None):
        row = distances(probe)
        return sorted((j for j in range(count) if j != skip), key=lambda j: row[j])

    ranked = [ranking(gallery[g], g) for g in range(count)]

    def near(g, k):  # N(g, k): the image itself and its k nearest others
        return [g, *ranked[g][:k]]

    def reciprocal(g, k):  # R(g, k)
        return {j for j in near(g, k) if g in near(j, k)}

    def grown(first):  # R*
        result = set(first)
        for c in first:
            half = reciprocal(c, round(k1 / 2))
            if len(first & half) > 2 / 3 * len(half):
                result |= half
        return result

    def encoding(probe, members, own):  # own: weight of the query's own column, which is not returned
        row = distances(probe)
        weights = [math.exp(-row[j]) if j in members else 0.0 for j in range(count)]
        return [value / (sum(weights) + own) for value in weights]

    def mean(vectors):
        return [sum(values) / k2 for values in zip(*vectors)]

    plain = [encoding(gallery[g], grown(reciprocal(g, k1)), 0) for g in range(count)]
    theirs = [mean([plain[j] for j in near(g, k2 - 1)]) for g in range(count)]
    mine = ranking(query)
    first = {g for g in mine[:k1] if query @ gallery[g] >= gallery[g] @ gallery[ranked[g][k1 - 1]]}
    asked = mean([encoding(query, grown(first), 1), *[plain[g] for g in mine[: k2 - 1]]])
    own = 1 - sum(asked)  # what lies in the query's own column
    result = []
    for g, distance in enumerate(distances(query)):
        least = sum(min(a, b) for a, b in zip(asked, theirs[g]))
        most = own + sum(max(a, b) for a, b in zip(asked, theirs[g]))
        result.append((1 - weight) * (1 - least / most) + weight * distance)
    return result


# Of python-version/re_ranking_ranklist.py in github.com/zhunzhong07/person-re-ranking at f952e80: re_ranking of the
# first 9 of clusters() as queries and the other 51 as their gallery, from Euclidean distances, lambda 0.3. For k1, k2:
# distances of the first query and of the second to the first 6 of the gallery, mean of all.
AUTHORS = {
    (7, 3): (
        [
            [0.65232, 0.78666, 0.81871, 0.68847, 0.97264, 0.93639],
            [0.83641, 0.90268, 0.95798, 0.84831, 0.12655, 0.95198],
        ],
        0.784057,
    ),
    (20, 6): (
        [
            [0.72439, 0.37883, 0.49460, 0.29094, 0.90997, 0.88364],
            [0.49261, 0.87995, 0.94904, 0.82375, 0.07686, 0.83002],
        ],
        0.654640,
    ),
    (4, 1): (
        [
            [0.84049, 0.80968, 0.81871, 0.78259, 0.97264, 0.93639],
            [0.83641, 0.90268, 0.95798, 0.84831, 0.73726, 0.95198],
        ],
        0.842857,
    ),
}


@pytest.mark.parametrize("k1, k2", AUTHORS)
def test_encodings_against_the_authors_program(gallery, k1, k2):
    """It ranks one set, whose encodings are those of a gallery here."""
    encodings = KReciprocal(gallery, *find_neighbours(gallery, exact(gallery), max(k1, k2)), k1, k2).averaged.toarray()
    shared = np.minimum(encodings[:9, None], encodings[None, 9:]).sum(-1)
    distance = 1 - gallery @ gallery.T
    distance /= distance.max(1, keepdims=True)
    found = 0.7 * (1 - shared / (2 - shared)) + 0.3 * distance[:9, 9:]
    expected, mean = AUTHORS[k1, k2]
    np.testing.assert_allclose(found[:2, :6], expected, atol=1e-5)
    assert found.mean() == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("k1, k2", [(20, 6), (7, 3), (4, 1)])
def test_reciprocal_against_sets(gallery, queries, k1, k2):
    reranker = KReciprocal(gallery, *find_neighbours(gallery, exact(gallery), max(k1, k2)), k1, k2, 0.3)
    scores, places = exact(gallery).search(queries, 60)
    found = reranker(queries, scores, places)
    for query, row, order in zip(queries, found, places):
        expected = slow_reciprocal(query, gallery, k1, k2, 0.3)
        np.testing.assert_allclose(row, [expected[j] for j in order], atol=2e-4)
    top = reranker(queries, scores[:, :25], places[:, :25])  # of the first alone: the same numbers
    np.testing.assert_allclose(top, found[:, :25], atol=1e-6)
    alone = reranker(queries[3:4], scores[3:4], places[3:4])  # and whatever else is asked
    np.testing.assert_allclose(alone, found[3:4], atol=1e-6)


def test_reciprocal_of_equal_images(gallery, queries):
    """Where the farthest image is at no distance, there is nothing to divide by."""
    same = np.repeat(gallery[:1], 12, 0)
    reranker = KReciprocal(same, *find_neighbours(same, exact(same), 5), 5, 2)
    for query in (queries[:1], gallery[:1]):
        assert np.isfinite(reranker(query, *exact(same).search(query, 12))).all()


def test_reciprocal_needs_neighbours(gallery):
    with pytest.raises(ValueError, match="k1 20: the gallery has 9 neighbours"):
        KReciprocal(gallery[:10], *find_neighbours(gallery[:10], exact(gallery[:10]), 20))


def test_diffusion_against_the_dense_solution(gallery, queries):
    k, gamma, alpha, query_k = 8, 3.0, 0.99, 4
    scores, places = exact(gallery).search(queries, 60)
    found = Diffusion(*find_neighbours(gallery, exact(gallery), k), gamma, alpha, query_k)(scores, places)
    cosines = gallery.astype(float) @ gallery.T
    nearest = [sorted((j for j in range(60) if j != i), key=lambda j: -cosines[i, j])[:k] for i in range(60)]
    graph = np.zeros((60, 60))
    for i in range(60):
        for j in nearest[i]:
            if i in nearest[j]:
                graph[i, j] = max(cosines[i, j], 0) ** gamma
    degree = graph.sum(1)
    scale = np.diag([one**-0.5 if one else 0 for one in degree])
    for query, row, order in zip(queries, found, places):
        start = np.zeros(60)
        for j in order[:query_k]:
            start[j] = max(float(query @ gallery[j]), 0) ** gamma
        expected = np.linalg.solve(np.eye(60) - alpha * scale @ graph @ scale, (1 - alpha) * start)
        np.testing.assert_allclose(row, expected[order], atol=1e-5)


def test_conjugate_gradients_solve_every_column():
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(0)
    root = random.standard_normal((12, 12))
    matrix, right = root @ root.T + np.eye(12), random.standard_normal((12, 3))
    right[:, 1] = 0
    np.testing.assert_allclose(
        conjugate_gradients(csr_matrix(matrix), right, 200), np.linalg.solve(matrix, right), atol=1e-5
    )


def test_chains_are_found_by_diffusion_alone():
    """Two half circles beside each other: along each, neighbours are close and the ends far apart."""
    angle = np.linspace(0.1, 2.6, 40)
    first = np.stack([np.cos(angle), np.sin(angle), np.full(40, 0.5)], 1)
    second = np.stack([np.cos(angle), np.sin(angle), np.full(40, -0.2)], 1)
    gallery = l2_normalize(np.concatenate([first, second]))
    query = gallery[:1]
    plain = Ranker(lambda: iter([gallery]), *gallery.shape)(query, 40)[0]
    spread = Ranker(lambda: iter([gallery]), *gallery.shape, Postprocessing(rerank="diffusion"))(query, 40)[0]
    assert (spread < 40).mean() > (plain < 40).mean()


@pytest.mark.parametrize(
    "after",
    [
        Postprocessing(),
        Postprocessing(pca_whiten=4),
        Postprocessing(dba=3),
        Postprocessing(alpha_qe=3),
        Postprocessing(rerank="k_reciprocal", k1=6),
        Postprocessing(rerank="diffusion"),
        Postprocessing(pca_whiten=0, dba=2, alpha_qe=2, rerank="k_reciprocal", rerank_depth=20),
    ],
)
def test_rankings_hold_every_image_once(gallery, queries, after):
    ranker = Ranker(lambda: iter([3 * gallery[:31], gallery[31:]]), *gallery.shape, after)
    places = ranker(5 * queries, 60)  # lengths do not matter
    assert all(sorted(row) == list(range(60)) for row in places.tolist())
    short = ranker(queries, 10)
    np.testing.assert_array_equal(short, places[:, :10])
    assert len(ranker.steps) == (after.pca_whiten >= 0) + bool(after.dba) + bool(after.alpha_qe) + (
        after.rerank != "none"
    )


def test_whitening_ignores_the_queries(gallery, queries):
    ranker = Ranker(lambda: iter([gallery]), *gallery.shape, Postprocessing(pca_whiten=0))
    together = ranker(queries, 60)
    alone = np.concatenate([ranker(query[None], 60) for query in queries])
    np.testing.assert_array_equal(together, alone)
