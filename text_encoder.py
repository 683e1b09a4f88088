"""Text encoders whose output is the style encoder's target: of training texts, and of names of styles.

texts -> encoder -> {embed (L, D), pooled (P,), mask (L,)} of each
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired

import torch
from typing_extensions import TypedDict

from common.models.checkpoint_file import first_line
from common.samples.hash_text_encoder import hash_text
from common.text.schema import read_checked

HASH = "hash"
RECORD = "targets.json"  # in a data folder: the encoder of its target files, so that two are never mixed
Targets = dict[str, torch.Tensor]
TextEncoder = Callable[[list[str]], list[Targets]]


class TextEncoderRecord(TypedDict):
    text_encoder: str
    max_length: int
    prompt: NotRequired[str]  # of a style's name, which it holds as {style}


def read_record(data_dir: Path) -> TextEncoderRecord | None:
    """None: the targets there, if any, are not of prepare_targets.py."""
    return read_checked(data_dir / RECORD, TextEncoderRecord) if (data_dir / RECORD).is_file() else None


def open_text_encoder(name: str, max_length: int, device: torch.device) -> TextEncoder:
    """name: Hugging Face name, local folder, or 'hash'. max_length: tokens."""
    if name == HASH:
        return lambda texts: [hash_text(text, length=max_length) for text in texts]
    return HuggingFaceTextEncoder(name, device, max_length)


class HuggingFaceTextEncoder:
    """texts -> [{embed (L, D), pooled (P,), mask (L,)}] by any text encoder of transformers, by name or folder.

    pooled is the projected vector of a CLIP text tower, the mean of the tokens of other models.
    """

    def __init__(self, name: str, device: torch.device, max_length: int):
        from transformers import (  # slow to import, and --text_encoder hash does not need it
            MODEL_FOR_TEXT_ENCODING_MAPPING,
            AutoConfig,
            AutoModel,
            AutoModelForTextEncoding,
            CLIPTextModelWithProjection,
        )

        from common.models.pretrained import LOAD_ERRORS, load_pretrained
        from common.models.tokenizer import load_tokenizer

        label, remedy = f"--text_encoder {name}", "give a Hugging Face name, a local folder, or 'hash'"
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            self.tokenizer = load_tokenizer(name)
            # An encoder-decoder's own class would ask for decoder input.
            kind: Any = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
            if config.model_type in ("clip", "clip_text_model"):
                kind = CLIPTextModelWithProjection
        except LOAD_ERRORS as error:
            raise ValueError(f"{label}: cannot be loaded ({first_line(error)}); {remedy}") from None
        # Decoders, image towers and heads are in such files, too; poolers are not used, and may be missing.
        model = load_pretrained(
            kind, name, label=label, remedy=remedy, missing=[r"pooler\."], unexpected=[""], dtype=torch.float32
        )
        self.model = model.eval().to(device)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = device
        self.max_length = min(max_length, self.tokenizer.model_max_length)

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> list[Targets]:
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        ).to(self.device)
        output = self.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        embed, mask = output.last_hidden_state, tokens["attention_mask"]  # (B, L, D), (B, L)
        pooled = getattr(output, "text_embeds", None)
        if pooled is None:
            pooled = (embed * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return [{"embed": e, "pooled": p, "mask": m} for e, p, m in zip(embed.cpu(), pooled.cpu(), mask.cpu())]
