"""Nearest neighbours: exact ones against a sort, approximate ones where they must be exact, and what is refused."""

import numpy as np
import pytest
import torch

from common.vectors import faiss_index
from common.vectors.faiss_index import ExactIndex, GpuIndex, build_index, index_factory
from common.vectors.shards import l2_normalize


@pytest.fixture
def vectors():
    return l2_normalize(np.random.default_rng(0).standard_normal((400, 16)))


@pytest.fixture
def queries():
    return l2_normalize(np.random.default_rng(1).standard_normal((7, 16)))


def blocks(vectors):
    return lambda: iter([vectors[:100], vectors[100:101], vectors[101:]])


def sorted_places(vectors, queries, k):
    return np.stack([np.argsort(-(vectors @ query), kind="stable")[:k] for query in queries])


@pytest.mark.parametrize("name", ["exact", "flat"])
@pytest.mark.parametrize("k", [1, 5, 150, 400])
def test_exact_search_is_a_sort(vectors, queries, name, k):
    scores, places = build_index(blocks(vectors), 400, 16, name).search(queries, k)
    np.testing.assert_array_equal(places, sorted_places(vectors, queries, k))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, places, 1), atol=1e-6)


def test_exact_search_in_small_pieces(vectors, queries, monkeypatch):
    monkeypatch.setattr(faiss_index, "QUERY_ROWS", 3)
    scores, places = ExactIndex(blocks(vectors), torch.device("cpu")).search(queries, 9)
    np.testing.assert_array_equal(places, sorted_places(vectors, queries, 9))
    halves = ExactIndex(lambda: (block.astype(np.float16) for block in blocks(vectors)()))
    assert (halves.search(queries, 1)[1] == places[:, :1]).mean() > 0.9  # shards hold half precision


def test_looking_everywhere_is_exact(vectors, queries):
    index = build_index(blocks(vectors), 400, 16, "ivf", "nprobe=999")
    np.testing.assert_array_equal(index.search(queries, 9)[1], sorted_places(vectors, queries, 9))


@pytest.mark.parametrize(
    "name, search, least",
    [("ivf", "nprobe=5", 0.7), ("hnsw", "", 0.95), ("ivfpq", "nprobe=10", 0.2), ("IVF4,SQfp16", "nprobe=4", 0.95)],
)
def test_approximate_indexes_find_most(vectors, queries, name, search, least):
    places = build_index(blocks(vectors), 400, 16, name, search).search(queries, 10)[1]
    expected = sorted_places(vectors, queries, 10)
    recall = np.mean([len(set(row) & set(right)) / 10 for row, right in zip(places.tolist(), expected.tolist())])
    assert recall >= least


def test_a_handful_of_vectors_can_be_indexed(vectors):
    for name in ("exact", "flat", "ivf", "hnsw"):
        index = build_index(lambda: iter([vectors[:3]]), 3, 16, name)
        assert index.search(vectors[:3], 1)[1].ravel().tolist() == [0, 1, 2]


def test_the_limit_of_a_gpu_is_said(vectors, queries):
    index = GpuIndex(build_index(blocks(vectors), 400, 16, "flat"))
    np.testing.assert_array_equal(index.search(queries, 9)[1], sorted_places(vectors, queries, 9))
    with pytest.raises(ValueError, match="at most 2048 on a GPU, not 2049; lower --depth"):
        index.search(queries, 2049)


def test_names():
    assert index_factory("ivf", 1_000_000, 1024) == ("IVF4000,Flat", "nprobe=250")
    assert index_factory("ivfpq", 1_000_000, 1024)[0] == "IVF4000,PQ128x8"
    assert index_factory("ivfpq", 1000, 100)[0] == "IVF25,PQ10x4"  # the largest divisor up to an eighth; 16 centroids
    assert index_factory("OPQ16,IVF256,PQ16", 10, 32) == ("OPQ16,IVF256,PQ16", "")


def test_what_faiss_refuses_is_one_line(vectors):
    with pytest.raises(ValueError, match="index 'tree': FAISS refuses it .*by name: exact, flat, ivf, hnsw, ivfpq"):
        build_index(blocks(vectors), 400, 16, "tree")
    with pytest.raises(ValueError, match="--search_params speed=9: FAISS refuses it"):
        build_index(blocks(vectors), 400, 16, "ivf", "speed=9")
    with pytest.raises(ValueError, match="--search_params nprobe=0: numbers start at 1"):
        build_index(blocks(vectors), 400, 16, "ivf", "nprobe=0")
