"""How well do images find their texts, and texts their images?

image vectors (N, D), text vectors (M, D), the image of each text (M,)
  -> rank_both_ways        rank of the best true answer of every query, 1 = first
  -> retrieval_scores      recall@1, 5, 10 both ways in percent, their sum RSum, mean and median rank, similarities

Nothing here flatters: a true answer ranks behind every false one of the same score, so a model that maps everything
to one point finds nothing, and no matrix is larger than `chunk` rows or BLOCK_ELEMENTS values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

RECALL_AT = (1, 5, 10)
BLOCK_ELEMENTS = 2**25  # similarities held at once, 128 MiB; a gallery larger than that still has one row at a time
MAX_PAIRS = 500_000  # false pairs whose similarity is looked at; more are sampled with a fixed seed
TIE = 1e-6  # cosines closer than this are equal: the same product of float32 differs so much with its place in a matrix


@dataclass
class Ranking:
    """What Q queries found in a gallery."""

    rank: torch.Tensor  # (Q,) of the best true answer, 1 = first
    found: torch.Tensor  # (Q,) the gallery's item in first place; a false one wherever rank > 1
    found_score: torch.Tensor  # (Q,) its cosine
    true_score: torch.Tensor  # (Q,) cosine of the best true answer
    true_count: torch.Tensor  # (Q,) true answers in the gallery
    gallery: int


def retrieval_scores(
    image_vectors: torch.Tensor,
    text_vectors: torch.Tensor,
    image_of_text: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    chunk: int = 1024,
) -> dict[str, float]:
    """All numbers of a set of pairs, by name; arguments as in rank_both_ways.

    i2t_r1, i2t_r5, i2t_r10, t2i_r1, ...: percent of queries with a true answer among the first 1, 5, 10;
    rsum: the sum of the six, 0..600; i2t_mean_rank, i2t_median_rank, t2i_...: 1 = always first;
    positive_similarity, negative_similarity, similarity_gap: see similarity_statistics.
    """
    images, texts = rank_both_ways(image_vectors, text_vectors, image_of_text, text_ids, chunk)
    statistics = similarity_statistics(image_vectors, text_vectors, image_of_text, text_ids)
    similarities = {name: value for name, value in statistics.items() if isinstance(value, float)}
    return {**rank_scores(images.rank, texts.rank), **similarities}


def rank_scores(image_ranks: torch.Tensor, text_ranks: torch.Tensor) -> dict[str, float]:
    """Ranks (N,) of image queries and (M,) of text queries -> recalls in percent, RSum, mean and median ranks."""
    scores = {}
    for direction, ranks in (("i2t", image_ranks), ("t2i", text_ranks)):
        ranks = ranks.double()
        scores |= {f"{direction}_r{k}": 100 * (ranks <= k).double().mean().item() for k in RECALL_AT}
        scores |= {f"{direction}_mean_rank": ranks.mean().item(), f"{direction}_median_rank": float(np.median(ranks))}
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

    An image with several texts has the rank of its best one. text_ids (M,): texts of one id say the same (see
    same_words) and are true for each other's images. `chunk`: queries compared with the gallery at once.
    """
    words = _check(image_vectors, text_vectors, image_of_text, text_ids)
    images, texts = image_vectors.float(), text_vectors.float()
    image_of_text = image_of_text.to(images.device)
    texts_of_image, texts_of_words = _Members(image_of_text), _Members(words)

    def texts_of_images(start: int, stop: int) -> torch.Tensor:  # -> (rows, M) bool
        row, text = texts_of_image.of(torch.arange(start, stop, device=words.device))
        said = torch.zeros(stop - start, len(texts_of_words.first), dtype=torch.bool, device=words.device)
        said[row, words[text]] = True
        return said[:, words]

    def images_of_texts(start: int, stop: int) -> torch.Tensor:  # -> (rows, N) bool
        asked, row_of_text = words[start:stop].unique(return_inverse=True)
        row, text = texts_of_words.of(asked)
        owners = torch.zeros(len(asked), len(images), dtype=torch.bool, device=words.device)
        owners[row, image_of_text[text]] = True
        return owners[row_of_text]

    return _rank(images, texts, texts_of_images, chunk), _rank(texts, images, images_of_texts, chunk)


def same_words(texts: Sequence[str]) -> torch.Tensor:
    """text_ids (M,): one number for all texts that differ at most in spaces and capital letters."""
    known: dict[str, int] = {}
    return torch.tensor([known.setdefault(" ".join(text.split()).casefold(), len(known)) for text in texts])


def chance_recall(true_count: torch.Tensor, gallery: int, k: int) -> float:
    """Percent of queries that random order would answer within the first k; true_count (Q,) true ones in a gallery."""

    def log_ways(items: torch.Tensor) -> torch.Tensor:  # ln(items! / (items - k)!)
        return torch.lgamma(items + 1) - torch.lgamma(items - k + 1)

    if k >= gallery:
        return 100.0
    false = gallery - true_count.double()
    missed = (log_ways(false.clamp(min=k)) - log_ways(torch.tensor(gallery, dtype=torch.float64))).exp()
    return 100 * (1 - missed.where(false >= k, 0)).mean().item()


def chance_ranks(true_count: torch.Tensor, gallery: int) -> tuple[float, float]:
    """Mean and median rank of random order."""
    low, high = 1, gallery
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if chance_recall(true_count, gallery, middle) >= 50 else (middle + 1, high)
    return ((gallery + 1) / (true_count.double() + 1)).mean().item(), float(low)


def similarity_statistics(
    image_vectors: torch.Tensor,
    text_vectors: torch.Tensor,
    image_of_text: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    bins: int = 200,
) -> dict[str, float | int | list]:
    """Cosines of true pairs (each text and its own image) and of false ones (all, or MAX_PAIRS drawn at random).

    positive_similarity, negative_similarity: means; similarity_gap: their difference; negative_pairs: false pairs
    looked at; *_histogram: counts (bins,) between `histogram_edges` (bins + 1,) in [-1, 1]. Where no pair is false,
    the names of false pairs are missing.
    """
    words = _check(image_vectors, text_vectors, image_of_text, text_ids)
    images, texts, owners = image_vectors.float(), text_vectors.float(), image_of_text.to(words.device)
    positive = _cosines(images, texts, owners, torch.arange(len(texts), device=words.device))
    if len(images) * len(texts) <= MAX_PAIRS:
        image, text = (
            index.flatten()
            for index in torch.meshgrid(
                torch.arange(len(images), device=words.device),
                torch.arange(len(texts), device=words.device),
                indexing="ij",
            )
        )
    else:
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(len(images), (MAX_PAIRS,), generator=generator).to(words.device)
        text = torch.randint(len(texts), (MAX_PAIRS,), generator=generator).to(words.device)
    groups = int(words.max()) + 1
    true = (owners * groups + words).unique()  # one number for an image and words that belong together
    asked = image * groups + words[text]
    false = true[torch.searchsorted(true, asked).clamp(max=len(true) - 1)] != asked
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


class _Members:
    """The members of each group 0, 1, 2, ..., from the group of each member (M,); sorted once, then asked in parts."""

    def __init__(self, groups: torch.Tensor):
        self.order = groups.argsort(stable=True)
        self.first = torch.cat([groups.new_zeros(1), groups.bincount().cumsum(0)])  # places in `order`

    def of(self, asked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Groups (A,) -> for each member of each of them, its row 0..A-1 and its number."""
        sizes = self.first[asked + 1] - self.first[asked]
        row = torch.arange(len(asked), device=asked.device).repeat_interleave(sizes)
        place = torch.arange(len(row), device=asked.device) - (sizes.cumsum(0) - sizes - self.first[asked])[row]
        return row, self.order[place]


def _rank(
    queries: torch.Tensor, gallery: torch.Tensor, truth: Callable[[int, int], torch.Tensor], chunk: int
) -> Ranking:
    """truth(start, stop) -> (stop - start, G) bool: which of the gallery are true for these queries."""
    parts = []
    rows = max(1, min(chunk, BLOCK_ELEMENTS // len(gallery)))
    for start in range(0, len(queries), rows):
        stop = min(start + rows, len(queries))
        # True and false scores come out of one product: rounding, TF32's too, is then the same for both.
        cosine, true = queries[start:stop] @ gallery.T, truth(start, stop)  # (rows, G) each
        best_true, which_true = cosine.masked_fill(~true, -torch.inf).max(1)
        best_false, which_false = cosine.masked_fill_(true, -torch.inf).max(1)
        rank = 1 + (cosine >= best_true[:, None] - TIE).sum(1)
        first = rank == 1
        found, score = torch.where(first, which_true, which_false), torch.where(first, best_true, best_false)
        parts.append([part.cpu() for part in (rank, found, score, best_true, true.sum(1))])
    return Ranking(*(torch.cat(column) for column in zip(*parts)), gallery=len(gallery))


def _check(images: torch.Tensor, texts: torch.Tensor, owners: torch.Tensor, text_ids: torch.Tensor | None):
    """Refuse what would give a number without meaning -> the text ids as 0, 1, 2, ... (M,)."""
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
    """Cosines (P,) of the pairs that two index lists (P,) name, a bounded number of vectors at a time."""
    blocks = zip(image.split(2**16), text.split(2**16))
    return torch.cat([(images[i] * texts[t]).sum(1) for i, t in blocks]).clamp(-1, 1).cpu()


def _histogram(cosines: torch.Tensor, bins: int) -> list[int]:
    return torch.histc(cosines, bins, min=-1, max=1).long().tolist()
