"""How does the demo's vision tower learn to see before a language model listens to it?

pixels (B, 3, H, W) -> tower -> projector -> patches (B, N, L) -> times the table of word embeddings (T, L)
  -> soft maximum over patches: which tokens stand in the caption? (B, T)

A LLaVA begins with a tower that has seen many captions. Beside one with random weights a language model learns which
words are frequent, and then hardly looks at the image. Here each patch learns to say what it shows, and the patch that
says a word loudest counts: words of captions by multiple-instance learning, as Fang et al. 2015 (arXiv 1411.4952).
"""

import math

import torch
from torch import nn
from tqdm import trange
from transformers import LlavaForConditionalGeneration


def teach_tower(
    model: LlavaForConditionalGeneration,
    pixels: torch.Tensor,
    captions: list[list[int]],
    steps: int = 1200,
    batch: int = 32,
    learning_rate: float = 2e-3,
) -> float:
    """Train tower, projector and word embeddings in place on pixels (N, 3, H, W) and the token ids of N captions.

    -> the last loss: binary cross-entropy, summed over the tokens that captions have
    """
    tower, projector, table = model.model.vision_tower, model.model.multi_modal_projector, model.get_input_embeddings()
    known = sorted(set().union(*captions))
    targets = torch.tensor([[float(token in caption) for token in known] for caption in map(set, captions)])  # (N, T)
    frequent = nn.Parameter(torch.logit(targets.mean(0), eps=1e-3))  # (T,)
    learning = [frequent, *tower.parameters(), *projector.parameters(), *table.parameters()]
    optimizer = torch.optim.AdamW(learning, learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    model.train()
    for _ in trange(steps, desc="the tower learns words"):
        chosen = torch.randperm(len(pixels))[:batch]
        states = tower(pixels[chosen], output_hidden_states=True).hidden_states[model.config.vision_feature_layer]
        said = projector(states[:, 1:]) @ table.weight[known].T  # (B, N, T), without the class token
        logits = said.logsumexp(1) - math.log(said.shape[1]) + frequent  # (B, T)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets[chosen]) * len(known)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
    return float(loss.detach())
