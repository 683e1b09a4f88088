"""FAISS indexes whose rows are known by ids: added, removed, and searched among some of them.

Indexes of inverted lists keep ids themselves. Every other one is put into an IndexIDMap, for it numbers its rows.
"""

from typing import Any

import numpy as np

from common.vectors.faiss_index import load_faiss


def with_ids(index: Any) -> Any:
    """An index whose add_with_ids works. IndexIDMap around inverted lists would lose their ids at remove_ids."""
    faiss = load_faiss()
    return index if isinstance(inner(index), faiss.IndexIVF) else faiss.IndexIDMap(index)


def ids_of(index: Any) -> np.ndarray:
    """-> (ntotal,) int64, ascending"""
    faiss = load_faiss()
    if isinstance(index, faiss.IndexIDMap):
        return np.sort(faiss.vector_to_array(index.id_map))
    lists = inner(index).invlists
    sizes = [(number, lists.list_size(number)) for number in range(lists.nlist)]
    return np.sort(
        np.concatenate([faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in sizes if size])
        if index.ntotal
        else np.empty(0, np.int64)
    )


def remove(index: Any, ids: np.ndarray) -> bool:
    """Whether FAISS can: it cannot take a node out of a graph, nor a row out of an index that is refined."""
    try:
        index.remove_ids(ids)
    except RuntimeError:
        return not len(ids)
    return True


def search_among(index: Any, queries: np.ndarray, k: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The nearest of the rows `ids` -> cosines (Q, k), ids (Q, k), -1 where it found fewer; None where FAISS cannot."""
    faiss = load_faiss()
    selector, base = faiss.IDSelectorBatch(ids), inner(index)
    if isinstance(base, faiss.IndexIVF):
        params = faiss.SearchParametersIVF(sel=selector, nprobe=base.nprobe)
    elif isinstance(base, faiss.IndexHNSW):  # what is passed over counts as explored
        explored = max(base.hnsw.efSearch, k) * index.ntotal // len(ids)
        params = faiss.SearchParametersHNSW(sel=selector, efSearch=min(explored, index.ntotal))
    else:
        params = faiss.SearchParameters(sel=selector)
    for layer in layers(index):
        if isinstance(layer, faiss.IndexPreTransform):
            if isinstance(index, faiss.IndexIDMap):  # which translates the ids of its own parameters alone
                return None
            params = faiss.SearchParametersPreTransform(index_params=params)
    # faiss.contrib.torch_utils, where it was imported, replaces `search` by one that takes no parameters.
    search = getattr(index, "search_numpy", index.search)
    try:
        return search(queries, k, params=params)
    except RuntimeError:
        return None


def is_graph(index: Any) -> bool:
    """Whether its nodes stay, but can be passed over in a search."""
    return isinstance(inner(index), load_faiss().IndexHNSW) and len(layers(index)) == 2


def inner(index: Any) -> Any:
    """The index that holds the vectors."""
    return layers(index)[-1]


def layers(index: Any) -> list[Any]:
    """An index and those it wraps, of their own classes, from the outside."""
    faiss, found = load_faiss(), [index]
    while isinstance(found[-1], (faiss.IndexIDMap, faiss.IndexPreTransform)):
        found.append(faiss.downcast_index(found[-1].index))
    return found
