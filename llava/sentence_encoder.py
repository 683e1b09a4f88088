"""Sentence encoder for the semantic similarity of texts.

texts -> tokens -> transformer -> mean of real tokens, or the first -> unit vectors -> cosine of each pair in [-1, 1]
"""

from pathlib import Path

import torch
from transformers import AutoModel
from transformers.utils import cached_file

from common.models.checkpoint_file import first_line
from common.models.pretrained import LOAD_ERRORS, load_pretrained
from common.models.tokenizer import load_tokenizer
from common.text.schema import read_checked

POOLING = "1_Pooling/config.json"  # of sentence-transformers
MEAN, FIRST_TOKEN = "pooling_mode_mean_tokens", "pooling_mode_cls_token"


class SentenceEncoder:
    """A Hugging Face encoder with the pooling that its folder names, of sentence-transformers; else with the mean."""

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            raise ValueError(f"{name}: holds no config.json (--sentence_encoder)")
        try:
            self.tokenizer = load_tokenizer(name)
            pooling = cached_file(name, POOLING, _raise_exceptions_for_missing_entries=False)
        except LOAD_ERRORS as error:
            raise ValueError(
                f"--sentence_encoder {name}: cannot be loaded ({first_line(error)}); give a name or a folder"
            ) from None
        # A head for another task may be there, and the pooler, which is not used, may be missing.
        model = load_pretrained(
            AutoModel, name, label=f"--sentence_encoder {name}", missing=[r"pooler\."], unexpected=[""]
        )
        self.model = model.to(device).eval()
        used = read_checked(pooling, dict[str, object]) if pooling else {}
        modes = {mode for mode in used if used[mode] is True}
        modes = {mode for mode in modes if mode.startswith("pooling_mode_")} or {MEAN}
        if modes not in ({MEAN}, {FIRST_TOKEN}):
            found = ", ".join(sorted(modes))
            raise ValueError(f"--sentence_encoder {name}: pools by {found}; expected {MEAN} or {FIRST_TOKEN}")
        self.first_token = modes == {FIRST_TOKEN}  # BGE, GTE, Arctic

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
            if self.first_token:
                mask = mask * (mask.cumsum(1) == 1)
            vectors.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).cpu())
        return torch.cat(vectors)

    def cosines(self, first: list[str], second: list[str]) -> list[float]:
        """Of the n-th texts of both lists."""
        return (self.encode(first) * self.encode(second)).sum(1).clamp(-1, 1).tolist()
