"""Fine-tuning of a CLIP in a loop of one's own, to begin from, with every line in sight.

python examples/clip_finetune.py DATA ViT-B/32              # OpenAI's weights, or NAME:TAG, or a file of weights
python examples/clip_finetune.py data/sample_captions small --rate 5e-4    # from scratch, at a higher rate
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from clip.checkpoint import save_clip
from clip.dataset import split_pairs
from clip.losses import clip_loss, positive_pairs
from clip.model import CLIPModel
from clip.pairs import find_pairs
from clip.training_model import parameter_groups
from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.io import open_image


@tool
def main(
    data: Path, model_name: str, *, rate: float = 1e-5, epochs: int = 3, output: Path = Path("finetuned.pth")
) -> float:
    """-> share of the held-out images whose own caption comes first."""
    model = CLIPModel("small") if model_name == "small" else CLIPModel.from_pretrained(model_name)
    pairs, _ = find_pairs(data)
    training, held_out = split_pairs(pairs, 0.1)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.05), rate)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(training)).split(32):
            images, tokens, ids = batch(model, [training[row] for row in rows.tolist()])
            loss = clip_loss(model.encode_image(images), model.encode_text(tokens), model.scale, positive_pairs(ids))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows) / len(training)
        print(f"epoch {epoch + 1}: loss {total:.3f}")
    model.eval()
    with torch.inference_mode():
        images, tokens, _ = batch(model, list(held_out))
        first = (model.encode_image(images) @ model.encode_text(tokens).T).argmax(1)
    right = (first == torch.arange(len(first))).float().mean().item()
    print(f"right caption first for {right:.1%} of {len(first)} held-out images, chance {1 / len(first):.1%}")
    save_clip(output, model)
    return right


def batch(model: CLIPModel, pairs: list) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-> images (B, 3, S, S), tokens (B, T), and ids (B,) that equal captions share, so that these are positives."""
    texts = [pair.texts[0] for pair in pairs]
    ids = torch.tensor([texts.index(text) for text in texts])
    return torch.stack([model.preprocess(open_image(pair.image)) for pair in pairs]), model.tokenize(texts), ids


if __name__ == "__main__":
    run_script(main)
