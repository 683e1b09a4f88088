"""Options of what is done to vectors and to ranked lists, which are flags of evaluate_retrieval.py."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Postprocessing:
    pca_whiten: int = -1  # PCA-whitening fitted on the gallery, to so many directions; 0: all, -1: none
    dba: NonNegativeInt = 0  # database augmentation: gallery vectors averaged with so many neighbours
    alpha_qe: NonNegativeInt = 0  # query expansion: query vectors averaged with so many neighbours
    alpha: NonNegativeFloat = 3.0  # of both: the weight is cosine^alpha; 0: plain mean
    rerank: Literal["none", "k_reciprocal", "diffusion"] = "none"
    rerank_depth: PositiveInt = 1000  # how much of each list is re-ranked
    k1: PositiveInt = 20  # k-reciprocal: neighbours that must be mutual
    k2: PositiveInt = 6  # k-reciprocal: encodings that are averaged
    lambda_: ClosedUnitInterval = 0.3  # k-reciprocal: share of the original distance


NO_POSTPROCESSING = Postprocessing()
