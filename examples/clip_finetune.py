"""python examples/clip_finetune.py DATA ViT-B/32: a CLIP in a training loop of one's own (small: from scratch)."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from clip.dataset import split_pairs
from clip.losses import clip_loss, positive_pairs
from clip.model import CLIPModel
from clip.pairs import find_pairs
from clip.training_model import parameter_groups
from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.io import open_image


@tool
def main(data: Path, model_name: str, *, rate: float = 1e-5, epochs: int = 3, output: Path = Path("tuned")) -> float:
    """-> share of the held-out images whose own caption comes first."""
    model = CLIPModel("small") if model_name == "small" else CLIPModel.from_pretrained(model_name)
    training, held_out = split_pairs(find_pairs(data)[0], 0.1)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.05), rate)
    for epoch in range(epochs):
        for rows in torch.randperm(len(training)).split(32):
            images, tokens, ids = batch(model.train(), [training[row] for row in rows.tolist()])
            loss = clip_loss(model.encode_image(images), model.encode_text(tokens), model.scale, positive_pairs(ids))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}: loss of its last batch {loss.item():.3f}")
    images, tokens, _ = batch(model.eval(), list(held_out))
    with torch.inference_mode():
        first = (model.encode_image(images) @ model.encode_text(tokens).T).argmax(1)
    right = first.eq(torch.arange(len(first))).float().mean().item()
    print(f"right caption first for {right:.1%} of {len(first)} held-out images, chance {1 / len(first):.1%}")
    model.save_pretrained(output)
    return right


def batch(model: CLIPModel, pairs: list) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-> images (B, 3, S, S), tokens (B, T), and ids (B,) that equal captions share, so that these are positives."""
    texts = [pair.texts[0] for pair in pairs]
    images = torch.stack([model.preprocess(open_image(pair.image)) for pair in pairs])
    return images, model.tokenize(texts), torch.tensor([texts.index(text) for text in texts])


if __name__ == "__main__":
    run_script(main)
