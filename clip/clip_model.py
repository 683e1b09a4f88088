"""Model, loss and trainer under the names of the training guide: `from clip_model import CLIPModel` in this folder."""

import sys
from pathlib import Path

if not __package__:  # imported from inside this folder: imports begin at the repository root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import nn

from clip.losses import clip_loss
from clip.model import CLIPModel
from common.training.trainer import Trainer as MultimodalTrainer

__all__ = ["CLIPModel", "ContrastiveLoss", "MultimodalTrainer"]


class ContrastiveLoss(nn.Module):
    """clip_loss of a batch where image i belongs to text i. temperature: tau, 0.07 in Radford et al. 2021."""

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.temperature = temperature

    def forward(self, image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        """image_features, text_features (B, D), of any length -> mean of the two cross-entropies."""
        images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        return clip_loss(images, texts, torch.tensor(1 / self.temperature, device=images.device))
