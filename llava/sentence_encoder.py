"""How close are two texts in meaning, in the eyes of a sentence encoder?

texts -> tokens -> transformer -> mean over real tokens -> unit vectors -> cosine of each pair in [-1, 1]
"""

from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


class SentenceEncoder:
    """A Hugging Face encoder whose vectors are means over tokens, as those of sentence-transformers mostly are."""

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            raise ValueError(f"{name}: no config.json in it (--sentence_encoder)")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModel.from_pretrained(name).to(device).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"--sentence_encoder {name}: cannot be loaded ({reason}); give a name or a folder"
            ) from None

    @torch.inference_mode()
    def encode(self, texts: list[str], batch_size: int = 32) -> torch.Tensor:
        """-> (N, D), unit length"""
        vectors = []
        for start in range(0, len(texts), batch_size):
            batch = self.tokenizer(
                texts[start : start + batch_size], padding=True, truncation=True, max_length=256, return_tensors="pt"
            ).to(self.model.device)
            states = self.model(**batch).last_hidden_state  # (B, T, D)
            mask = batch["attention_mask"][:, :, None]
            vectors.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).cpu())
        return torch.cat(vectors)

    def cosines(self, first: list[str], second: list[str]) -> list[float]:
        """Of each pair of texts."""
        return (self.encode(first) * self.encode(second)).sum(1).clamp(-1, 1).tolist()
