"""Retrieval metrics between images and texts.

image vectors (N, D), text vectors (M, D), the image of each text (M,)
  -> rank_both_ways        rank of the best true answer of every query, 1 = first
  -> retrieval_scores      recall@1, 5, 10 both ways in percent, their sum RSum, mean and median rank, similarities

Ties count against the model: a true answer ranks behind every false one of the same score, so a model that maps
everything to one point has no recall. No matrix is larger than `chunk` rows or BLOCK_ELEMENTS values.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.stats import hypergeom

from common.metrics.embedding import pair_products
from common.metrics.pair_auc import TIE

RECALL_AT = (1, 5, 10)
BLOCK_ELEMENTS = 2**25  # similarities held at once, 128 MiB; a gallery larger than that still has one row at a time
PIECE = 2**22  # true answers whose scores are taken at once; nearly all pairs may be true
MAX_PAIRS = 500_000  # false pairs whose similarity is computed; of more a sample with a fixed seed


@dataclass
class Ranking:
    """Results of Q queries in a gallery."""

    gallery: int  # its size
    rank: torch.Tensor  # (Q,) of the best true answer, 1 = first
    found: torch.Tensor  # (Q,) the gallery's item at rank 1; a false one wherever rank > 1
    found_score: torch.Tensor  # (Q,) its cosine
    true_score: torch.Tensor  # (Q,) cosine of the best true answer
    true_count: torch.Tensor  # (Q,) true answers in the gallery


def retrieval_scores(
    image_vectors: torch.Tensor,
    text_vectors: torch.Tensor,
    image_of_text: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    chunk: int = 1024,
) -> dict[str, float]:
    """All metrics of a set of pairs, by name; arguments as in rank_both_ways.

    i2t_r1, i2t_r5, i2t_r10, t2i_r1, ...: percent of queries with a true answer among the first 1, 5, 10;
    rsum: the sum of the six, 0..600; i2t_mean_rank, i2t_median_rank, t2i_...: 1 = always first;
    positive_similarity, negative_similarity, similarity_gap: see similarity_statistics.
    """
    images, texts = rank_both_ways(image_vectors, text_vectors, image_of_text, text_ids, chunk)
    statistics = similarity_statistics(image_vectors, text_vectors, image_of_text, text_ids)
    means = {name: value for name, value in statistics.items() if isinstance(value, float)}
    return {**rank_scores(images.rank, texts.rank), **means}


def rank_scores(image_ranks: torch.Tensor, text_ranks: torch.Tensor) -> dict[str, float]:
    """Ranks (N,) of image queries and (M,) of text queries -> recalls in percent, RSum, mean and median ranks."""
    scores: dict[str, float] = {}
    for direction, ranks in (("i2t", image_ranks), ("t2i", text_ranks)):
        scores |= {f"{direction}_r{k}": 100 * (ranks <= k).double().mean().item() for k in RECALL_AT}
        mean = ranks.double().mean().item()
        scores |= {f"{direction}_mean_rank": mean, f"{direction}_median_rank": float(np.median(ranks))}
    scores["rsum"] = sum(scores[f"{direction}_r{k}"] for direction in ("i2t", "t2i") for k in RECALL_AT)
    return scores


def rank_both_ways(
    image_vectors: torch.Tensor,
    text_vectors: torch.Tensor,
    image_of_text: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    chunk: int = 1024,
) -> tuple[Ranking, Ranking]:
    """Unit vectors (N, D) and (M, D), the image of each text (M,) -> ranking of the images, ranking of the texts.

    An image with several texts has the rank of its best one. text_ids (M,): texts with the same id are equivalent (see
    same_words) and true for each other's images. `chunk`: queries compared with the gallery at once.
    """
    groups = _check(image_vectors, text_vectors, image_of_text, text_ids)
    images, texts = image_vectors.float(), text_vectors.float()
    owners, group_of_text = image_of_text.cpu().numpy(), groups.cpu().numpy()
    is_own, is_member = np.ones((2, len(texts)), bool)
    groups_of_images = csr_array((is_own, (owners, group_of_text)))  # (N, G)
    texts_of_groups = csr_array((is_member, (group_of_text, np.arange(len(texts)))))  # (G, M)
    images_of_groups = groups_of_images.T.tocsr()

    def texts_of_images(start: int, stop: int) -> csr_array:  # -> (rows, M) bool
        return groups_of_images[start:stop] @ texts_of_groups

    def images_of_texts(start: int, stop: int) -> csr_array:  # -> (rows, N) bool
        return images_of_groups[group_of_text[start:stop]]

    return _rank(images, texts, texts_of_images, chunk), _rank(texts, images, images_of_texts, chunk)


def same_words(texts: Sequence[str]) -> torch.Tensor:
    """text_ids (M,): equal for texts that differ only in whitespace and case."""
    ids: dict[str, int] = {}
    return torch.tensor([ids.setdefault(" ".join(text.split()).casefold(), len(ids)) for text in texts])


def chance_recall(true_count: torch.Tensor, gallery: int, k: int) -> float:
    """Recall@k in percent of a random order; true_count (Q,): true answers of each query in the gallery."""
    counts, queries = np.unique(true_count.cpu().numpy(), return_counts=True)
    return 100 * float(1 - np.average(hypergeom.pmf(0, gallery, counts, min(k, gallery)), weights=queries))


def chance_ranks(true_count: torch.Tensor, gallery: int) -> tuple[float, float]:
    """Mean and median rank of a random order."""
    # At the last rank recall is 100 %.
    median = 1 + bisect_left(range(1, gallery), 50.0, key=lambda rank: chance_recall(true_count, gallery, rank))
    return ((gallery + 1) / (true_count.double() + 1)).mean().item(), float(median)


def similarity_statistics(
    image_vectors: torch.Tensor,
    text_vectors: torch.Tensor,
    image_of_text: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    bins: int = 200,
) -> dict[str, float | int | list]:
    """Cosines of true pairs (each text and its own image) and of false ones (all, or MAX_PAIRS drawn at random).

    positive_similarity, negative_similarity: means; similarity_gap: their difference; negative_pairs: number of false
    pairs; *_histogram: counts (bins,) between `histogram_edges` (bins + 1,) in [-1, 1]. Without false pairs, the names
    that concern them are absent.
    """
    groups = _check(image_vectors, text_vectors, image_of_text, text_ids)
    device, images, texts = groups.device, image_vectors.float(), text_vectors.float()
    owners = image_of_text.to(device)
    positive = _cosines(images, texts, owners, torch.arange(len(texts), device=device))
    if len(images) * len(texts) <= MAX_PAIRS:
        pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(texts))).T
    else:
        generator = torch.Generator().manual_seed(0)
        pairs = torch.stack([torch.randint(len(side), (MAX_PAIRS,), generator=generator) for side in (images, texts)])
    image, text = (index.to(device) for index in pairs)
    count = int(groups.max()) + 1  # image * count + group is one number for both
    false = ~torch.isin(image * count + groups[text], owners * count + groups)
    negative = _cosines(images, texts, image[false], text[false])
    result = {
        "positive_similarity": positive.double().mean().item(),
        "positive_histogram": _histogram(positive, bins),
        "histogram_edges": np.linspace(-1, 1, bins + 1).tolist(),
    }
    if len(negative):
        result["negative_similarity"] = negative.double().mean().item()
        result["similarity_gap"] = result["positive_similarity"] - result["negative_similarity"]
        result |= {"negative_pairs": len(negative), "negative_histogram": _histogram(negative, bins)}
    return result


def _rank(queries: torch.Tensor, gallery: torch.Tensor, truth: Callable[[int, int], csr_array], chunk: int) -> Ranking:
    """truth(start, stop) -> (stop - start, G) bool, the true answers of some queries."""
    rows, parts = max(1, min(chunk, BLOCK_ELEMENTS // len(gallery))), []
    for start in range(0, len(queries), rows):
        stop = min(start + rows, len(queries))
        # True and false scores come from one product, so rounding (TF32's too) is the same for both.
        cosine, true = queries[start:stop] @ gallery.T, truth(start, stop)  # (rows, G) each
        best_true, which_true = _take_true(cosine, true)
        best_false, which_false = cosine.max(1)
        rank = 1 + (cosine >= best_true[:, None] - TIE).sum(1)
        first = rank == 1
        found, score = torch.where(first, which_true, which_false), torch.where(first, best_true, best_false)
        count = torch.from_numpy(np.diff(true.indptr).astype(np.int64))
        parts.append([part.cpu() for part in (rank, found, score, best_true, count)])
        del cosine  # before the next block is made
    return Ranking(len(gallery), *map(torch.cat, zip(*parts)))


def _take_true(cosine: torch.Tensor, true: csr_array) -> tuple[torch.Tensor, torch.Tensor]:
    """The best score (rows,) of the true answers and the first that has it (rows,); all of them become -inf in
    `cosine` (rows, G). A whole mask would take as long as the product."""
    count, width = cosine.shape
    row = torch.from_numpy(np.repeat(np.arange(count), np.diff(true.indptr)))
    column = torch.from_numpy(true.indices.astype(np.int64))
    pieces = list(zip(row.to(cosine.device).split(PIECE), column.to(cosine.device).split(PIECE)))
    best = cosine.new_full((count,), -torch.inf)
    which = torch.full((count,), width, device=cosine.device)
    for rows, columns in pieces:
        best.scatter_reduce_(0, rows, cosine[rows, columns], "amax")
    for rows, columns in pieces:
        is_best = cosine[rows, columns] == best[rows]
        which.scatter_reduce_(0, rows[is_best], columns[is_best], "amin")
    for rows, columns in pieces:
        cosine[rows, columns] = -torch.inf
    return best, which


def _check(
    images: torch.Tensor, texts: torch.Tensor, owners: torch.Tensor, text_ids: torch.Tensor | None
) -> torch.Tensor:
    """Refuse input whose metrics would be meaningless -> the text ids as 0, 1, 2, ... (M,)."""
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1] or not len(images) or not len(texts):
        raise ValueError(
            f"vectors {tuple(images.shape)} and {tuple(texts.shape)}: expected (N, D) and (M, D), not empty"
        )
    for name, vectors in (("image", images), ("text", texts)):
        lengths = vectors.float().norm(dim=1)
        if bad := int((~lengths.isfinite()).sum()):
            raise ValueError(f"{name} vectors: {bad} of {len(vectors)} are not finite; the model has diverged")
        if lengths.max() > 1.02:
            raise ValueError(f"{name} vectors: length {lengths.max():.3g}; normalise them to unit length first")
    for name, ids in (("image_of_text", owners), ("text_ids", text_ids)):
        if ids is not None and len(ids) != len(texts):
            raise ValueError(f"{name}: {len(ids)} numbers for {len(texts)} texts")
    if owners.min() < 0 or owners.max() >= len(images) or len(owners.unique()) < len(images):
        raise ValueError(f"image_of_text: expected every image of 0..{len(images) - 1} to have a text, and no other")
    ids = torch.arange(len(texts)) if text_ids is None else text_ids
    return ids.to(images.device).unique(return_inverse=True)[1]


def _cosines(images: torch.Tensor, texts: torch.Tensor, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Cosines (P,) of the pairs that two index lists (P,) name."""
    return pair_products(images, texts, image, text).clamp(-1, 1).cpu()


def _histogram(cosines: torch.Tensor, bins: int) -> list[int]:
    return torch.histc(cosines, bins, min=-1, max=1).long().tolist()
