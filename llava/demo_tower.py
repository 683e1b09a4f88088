"""Pretraining of the demo's vision tower on the words of captions.

pixels (B, 3, H, W) -> tower -> projector -> patches (B, N, L) -> logits over the word embeddings (B, N, T)
  -> soft maximum over patches -> which tokens occur in the caption (B, T)

A LLaVA begins with a tower that was pretrained on many captions. On top of one with random weights a language model
learns which words are frequent, and then hardly uses the image. Here each patch predicts the words for what it shows,
and the patch with the highest logit counts: multiple-instance learning, as in Fang et al. 2015 (arXiv 1411.4952).
"""

import math

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from common.samples.word_pretraining import minimize


def pretrain_tower(
    model: LlavaForConditionalGeneration,
    pixels: torch.Tensor,
    captions: list[list[int]],
    steps: int = 1200,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
) -> tuple[float, float]:
    """Train tower, projector and word embeddings in place on pixels (N, 3, H, W) and the token ids of N captions.

    -> loss at the beginning and at the end: binary cross-entropy, summed over the tokens that captions have
    """
    tower, projector, table = model.model.vision_tower, model.model.multi_modal_projector, model.get_input_embeddings()
    vocabulary = sorted(set().union(*captions))
    targets = torch.tensor([[float(token in caption) for token in vocabulary] for caption in map(set, captions)])
    frequency = nn.Parameter(torch.logit(targets.mean(0), eps=1e-3))  # (T,)

    def loss() -> torch.Tensor:
        rows = torch.randperm(len(pixels))[:batch_size]
        states = tower(pixels[rows], output_hidden_states=True).hidden_states[model.config.vision_feature_layer]
        scores = projector(states[:, 1:]) @ table.weight[vocabulary].T  # (B, N, T), without the class token
        logits = scores.logsumexp(1) - math.log(scores.shape[1]) + frequency  # (B, T)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets[rows]) * len(vocabulary)

    model.train()
    parameters = [frequency, *tower.parameters(), *projector.parameters(), *table.parameters()]
    return minimize(loss, parameters, steps, learning_rate, "pretraining the vision tower", warmup=0.05)
