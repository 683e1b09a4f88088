"""The style vector: a learned part, and two that no training touches.

image, feature maps -> StyleHead -> style (B, S), unit length
    learned   a small network over a colour histogram, and mean, deviation and covariance of each map
    texture   Gram matrices of the maps below which the backbone stays as pretrained, and the power spectrum of the
              image, seen by a linear discriminant
    palette   the colour histogram, seen by another one

From a few styles a network learns those styles. What it learns separates similar styles best; what needs no training
cannot overfit, and holds for styles and domains that the training data lack. style_readout.py fits the discriminants.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common.models.linear_discriminant import LinearDiscriminant

PALETTE_BINS = 8  # per colour channel
PART_WIDTH = 128  # of each statistic that the network reads
COVARIANCE_CHANNELS = 24
GRAM_CHANNELS = 64
OCTAVES, RINGS, SECTORS = 6, 14, 8  # of the power spectrum: octaves below the highest frequency, in rings and sectors
DIRECTIONS = 128  # of each discriminant; twice as many find fewer neighbours of the same style
SHARES = {"learned": 0.4, "texture": 0.35, "palette": 0.25}  # of the squared length


class StyleHead(nn.Module):
    """frozen_maps: how many feature maps, from the shallowest, training leaves as they are. In training mode the style
    vector is the learned part alone, (B, style_width): the loss must not lean on the others."""

    def __init__(self, map_widths: list[int], style_width: int, dropout: float, frozen_maps: int = 0):
        super().__init__()
        # Backbones are trained to ignore colours and tones. The histogram is computed, not learned: a linear layer
        # keeps its distances from the first step on, whereas learned bins needed longer than a complete training here.
        self.palette = nn.Linear(PALETTE_BINS**3, PART_WIDTH)
        # An equal share for each depth: the deepest map would dominate the others by its width alone.
        self.projections = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, PART_WIDTH)) for width in map_widths
        )
        reductions = [nn.Conv2d(width, min(COVARIANCE_CHANNELS, width), 1) for width in map_widths]
        for reduction in reductions:
            nn.init.orthogonal_(reduction.weight)
        self.reductions = nn.ModuleList(reductions)
        pairs = [_pairs(min(COVARIANCE_CHANNELS, width)) for width in map_widths]
        self.covariances = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(count), nn.Linear(count, PART_WIDTH)) for count in pairs
        )
        self.mix = nn.Sequential(
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(PART_WIDTH * (1 + 2 * len(map_widths)), 256),
            nn.GELU(),
            nn.Linear(256, style_width),
        )
        self.frozen_maps = frozen_maps
        self.gram = GramStatistics(map_widths[:frozen_maps])
        self.discriminants = nn.ModuleDict({"palette": LinearDiscriminant([PALETTE_BINS**3], DIRECTIONS)})
        if frozen_maps:  # the spectrum alone would be a worse neighbour than the other parts
            self.discriminants["texture"] = LinearDiscriminant([self.gram.width, RINGS * SECTORS], DIRECTIONS)
        self.width = style_width + DIRECTIONS * len(self.discriminants)  # S

    def forward(self, image: torch.Tensor, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        histogram = colour_histogram(image, PALETTE_BINS)
        parts = {"learned": self.learned(histogram, feature_maps)}
        if self.training:
            return parts["learned"]
        statistics = self.statistics(image, histogram, feature_maps)
        parts |= {name: discriminant(statistics[name]) for name, discriminant in self.discriminants.items()}
        return F.normalize(torch.cat([part * SHARES[name] ** 0.5 for name, part in parts.items()], 1), dim=1)

    def learned(self, histogram: torch.Tensor, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        """-> (B, style_width), unit length."""
        # A histogram has unit length; PALETTE_BINS**1.5 is the scale that LayerNorm gives to the other parts.
        parts = [self.palette(histogram * PALETTE_BINS**1.5)]
        for feature_map, project in zip(feature_maps, self.projections):
            feature_map = feature_map.float()
            deviation = (feature_map.var((2, 3), unbiased=False) + 1e-6).sqrt()  # + 1e-6: sqrt has no slope at 0
            parts.append(project(torch.cat([feature_map.mean((2, 3)), deviation], 1)))  # (B, PART_WIDTH)
        for feature_map, reduction, project in zip(feature_maps, self.reductions, self.covariances):
            reduced = reduction(feature_map.float()).flatten(2)
            covariance = _upper_products(reduced - reduced.mean(2, keepdim=True))
            # A signed root; with less than 1e-4 its slope at 0 would blow up differences of rounding.
            parts.append(project(covariance * (covariance.abs() + 1e-4).rsqrt()))
        return F.normalize(self.mix(torch.cat(parts, 1)).float(), dim=1)

    def statistics(
        self, image: torch.Tensor, histogram: torch.Tensor, feature_maps: list[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """-> {name of a discriminant: its input (B, W)}"""
        vectors = {"palette": histogram}
        if self.frozen_maps:
            gram = self.gram(feature_maps[: self.frozen_maps])
            vectors["texture"] = torch.cat([gram, power_spectrum(image)], 1)
        return vectors


class GramStatistics(nn.Module):
    """Gram matrices of feature maps (Gatys et al. 2016, equation 3) -> (B, width), each normalised to unit length.

    Maps with more than GRAM_CHANNELS channels are first projected to so many by one fixed random orthogonal matrix, or
    the matrices of a wide backbone would need gigabytes.
    """

    def __init__(self, map_widths: list[int]):
        super().__init__()
        self.width = sum(_pairs(min(width, GRAM_CHANNELS)) for width in map_widths)
        for number, width in enumerate(map_widths):
            random = torch.randn(width, min(width, GRAM_CHANNELS), generator=torch.Generator().manual_seed(0))
            matrix = torch.linalg.qr(random)[0].T if width > GRAM_CHANNELS else torch.eye(width)
            self.register_buffer(f"projection_{number}", matrix)

    def forward(self, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        parts = []
        for number, feature_map in enumerate(feature_maps):
            maps = feature_map.float().flatten(2)  # (B, C, hw)
            if maps.shape[1] > GRAM_CHANNELS:
                maps = self.get_buffer(f"projection_{number}") @ maps
            parts.append(F.normalize(_upper_products(maps), dim=1))
        return torch.cat(parts, 1)


def colour_histogram(image: torch.Tensor, bins: int = PALETTE_BINS) -> torch.Tensor:
    """image (B, 3, H, W), uint8 0..255 or float 0..1 -> square root of its RGB histogram (B, bins^3), unit length.

    The cosine of two of them is the Hellinger affinity of the two palettes.
    """
    cells = image.long() * bins // 256 if image.dtype == torch.uint8 else (image * bins).long().clamp(0, bins - 1)
    cells = ((cells[:, 0] * bins + cells[:, 1]) * bins + cells[:, 2]).flatten(1)  # (B, H W)
    counts = torch.zeros(image.shape[0], bins**3, device=image.device)
    counts.scatter_add_(1, cells, torch.ones_like(cells, dtype=counts.dtype))
    return (counts / cells.shape[1]).sqrt()


def power_spectrum(image: torch.Tensor) -> torch.Tensor:
    """image (B, 3, H, W), uint8 0..255 or float 0..1 -> log shares of its power in each cell (B, RINGS * SECTORS).

    Cells are rings of frequency, on a logarithmic scale, in sectors of orientation: how wide lines are, how fine their
    texture is, and which way they run, whatever the colours and the contrast.
    """
    grey = (image / 255 if image.dtype == torch.uint8 else image.float()).mean(1)
    power = torch.fft.rfft2(grey - grey.mean((1, 2), keepdim=True)).abs().square().flatten(1)  # (B, H (W / 2 + 1))
    cells = _frequency_cells(grey.shape[1], grey.shape[2], image.device).expand_as(power)
    sums = torch.zeros(power.shape[0], RINGS * SECTORS, device=image.device).scatter_add_(1, cells, power)
    counts = torch.zeros_like(sums).scatter_add_(1, cells, torch.ones_like(power))
    means = sums / counts.clamp(min=1.0)
    return (means / means.sum(1, keepdim=True).clamp(min=1e-9) + 1e-6).log()


def _frequency_cells(height: int, width: int, device: torch.device) -> torch.Tensor:
    """The cell of each frequency of rfft2 (H (W / 2 + 1),), int64."""
    rows = ((torch.arange(height, device=device) + height // 2) % height - height // 2)[:, None] / height
    columns = torch.arange(width // 2 + 1, device=device) / width
    octave = (2 * torch.sqrt(rows**2 + columns**2)).clamp(2.0**-OCTAVES, 1.0).log2() / OCTAVES + 1  # 0 .. 1
    sector = (torch.atan2(rows, columns.expand(height, -1)) / torch.pi + 0.5) * SECTORS
    cells = (octave * RINGS).long().clamp(max=RINGS - 1) * SECTORS + sector.long().clamp(max=SECTORS - 1)
    return cells.flatten()


def _upper_products(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, N) -> mean products of every two channels (B, C (C + 1) / 2)"""
    products = maps @ maps.transpose(1, 2) / maps.shape[2]
    rows, columns = torch.triu_indices(products.shape[1], products.shape[1], device=maps.device)
    return products[:, rows, columns]


def _pairs(channels: int) -> int:
    return channels * (channels + 1) // 2
