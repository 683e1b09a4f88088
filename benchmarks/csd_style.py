"""Style vectors by the recipe of CSD (Somepalli et al. 2024), as a baseline with the same backbone and budget.

images -> backbone -> pooled -> linear -> (B, 128), unit length. Two views of each image by crops, flips and turns; loss
5 * supervised contrast over style labels + 1 * contrast of the two views, temperature 0.1. It has no content head:
its weight in the published recipe is 0.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import SupConLoss
from torch import nn
from torchvision.transforms import v2

from batch_sampler import PKBatchSampler
from common.images.cache import ImageCache
from common.models.backbone import VisionTower
from common.training.schedule import TrainSchedule, set_learning_rate
from dataset import StyleDataset, find_samples
from targets import TargetShapes

LABEL_WEIGHT, VIEW_WEIGHT, TEMPERATURE = 5.0, 1.0, 0.1


class CsdEncoder(nn.Module):
    def __init__(self, model_name: str, pretrained: str, image_size: int):
        super().__init__()
        self.tower = VisionTower(model_name, pretrained, image_size)
        self.style = nn.Linear(self.tower.pooled_width, 128)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.style(self.tower(image).pooled), dim=1)


def train_csd(
    data_dir: Path, model_name: str, pretrained: str, image_size: int, batch_size: int, steps: int, cache_dir: Path
) -> CsdEncoder:
    """batch_size counts views, so that a step costs as much as one of the style encoder without frozen layers."""
    torch.manual_seed(0)
    samples = find_samples(data_dir)
    images = ImageCache(image_size, cache_dir, data=data_dir)
    dataset = StyleDataset(samples, images, image_size, TargetShapes())
    sampler = PKBatchSampler(dataset, batch_size // 2, 2)
    view = v2.Compose(
        [
            v2.RandomResizedCrop(image_size, scale=(0.25, 1)),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(0.3),
            v2.RandomRotation(15, fill=255),
        ]
    )
    encoder = CsdEncoder(model_name, pretrained, image_size).train()
    groups = [
        {"params": encoder.tower.parameters(), "scale": 0.3},
        {"params": encoder.style.parameters(), "scale": 1.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    loss_of = SupConLoss(TEMPERATURE)
    schedule = TrainSchedule(1, 1e-3, warmup_steps=50)
    step, epoch = 0, 0
    while step < steps:
        sampler.set_position(epoch)
        for batch in sampler:
            if step == steps:
                break
            items = [dataset[key] for key in batch]
            views = torch.stack([view(item["image"]) for _ in range(2) for item in items])
            labels = torch.stack([item["style_ids"] for item in items]).repeat(2)
            vectors = encoder(views)
            set_learning_rate(optimizer, step, steps, schedule)
            loss = LABEL_WEIGHT * loss_of(vectors, labels)
            loss = loss + VIEW_WEIGHT * loss_of(vectors, torch.arange(len(items)).repeat(2))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                print(f"CSD step {step}/{steps}, loss {loss.item():.3f}", flush=True)
        epoch += 1
    return encoder.eval()
