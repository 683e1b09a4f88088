"""Linear discriminant analysis of vectors with class labels, for classes that the fit has not seen.

fit(sources) -> the directions in which classes differ most in relation to their inner spread
vectors (B, W) -> (B, D), unit length

The within-class covariance is shrunk towards a multiple of the identity, as in scikit-learn's
LinearDiscriminantAnalysis; its eigen solver takes minutes for thousands of dimensions, and only as many directions as
classes are needed here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

SHRINKAGE = 0.25


class LinearDiscriminant(nn.Module):
    """A linear map with a fixed number of directions D; before fit, or with fewer classes than that, some are zero.

    widths: of the kinds of statistics that stand side by side in a vector, W together; each kind counts the same.
    """

    mean: torch.Tensor
    directions: torch.Tensor

    def __init__(self, widths: Sequence[int], directions: int):
        super().__init__()
        self.widths, width = list(widths), sum(widths)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(width, directions))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize((vectors.float() - self.mean) @ self.directions, dim=1)

    @torch.no_grad()
    def fit(self, sources: Sequence[tuple[torch.Tensor, torch.Tensor, float]]) -> None:
        """sources: (vectors (N, W), labels (N,), weight) each, classes of at least two vectors; the first is the data
        itself, whose mean and deviations standardise all. Weights are relative; classes of a source share its own."""
        data = sources[0][0]
        deviations = data.std(0).split(self.widths)
        scale = torch.cat([1 / (part + 1e-3 * part.max()).clamp(min=1e-12) / len(part) ** 0.5 for part in deviations])
        mean, total = data.mean(0), sum(weight for *_, weight in sources)
        within, between = torch.zeros(len(mean), len(mean), device=data.device), []
        for vectors, labels, weight in sources:
            standard = (vectors - mean) * scale
            classes = labels.unique(return_inverse=True)[1].to(data.device)
            counts = classes.bincount()[:, None]
            centres = torch.zeros(len(counts), data.shape[1], device=data.device).index_add_(0, classes, standard)
            centres /= counts
            # Every class counts equally, so each vector is divided by its class's degrees of freedom.
            spread = (standard - centres[classes]) / (counts[classes] - 1).clamp(min=1).sqrt()
            within += spread.T @ spread * (weight / total / len(counts))
            between.append((centres - centres.mean(0)) * (weight / total / len(counts)) ** 0.5)
        within.mul_(1 - SHRINKAGE).diagonal().add_(SHRINKAGE * within.diagonal().mean() / (1 - SHRINKAGE))
        # Generalised eigenvectors of between and within, by a Cholesky factor and a thin decomposition.
        factor = torch.linalg.cholesky(within)
        whitened = torch.linalg.solve_triangular(factor, torch.cat(between).T, upper=False)
        vectors, strengths, _ = torch.linalg.svd(whitened, full_matrices=False)
        kept = min(self.directions.shape[1], int((strengths > 1e-4 * strengths[0]).sum()))
        self.directions.zero_()[:, :kept] = (
            torch.linalg.solve_triangular(factor.T, vectors[:, :kept], upper=True) * scale[:, None]
        )
        self.mean.copy_(mean)
