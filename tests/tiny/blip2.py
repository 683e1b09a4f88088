"""BLIP2-gated: a random model with gates, a folder that save_pretrained wrote, drawn questions, the flags of a run."""

import copy
import csv
from pathlib import Path

import torch
from conftest import flags

from blip2_gated.backbone import build_blip2, fit_config, make_tokenizer
from blip2_gated.gates import GATES
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary

TEXTS = ["Question: In which style is this drawn? Answer: Noto\n", "Question: How many? Answer: two black cats\n"]
CONFIG = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "qformer_config": {
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "cross_attention_frequency": 2,
    },
    "text_config": {
        "model_type": "opt",
        "vocab_size": 600,
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "num_query_tokens": 5,
}
KINDS = [(kind, per_head) for kind in GATES for per_head in (False, True)]
MAPPER = {"num_tokens": 3, "hidden": 32, "dropout": 0.1}


def build(kind="film", per_head=False, trained="gates", lora=None, seed=0):
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(TEXTS, 600)
    blip2 = build_blip2(fit_config(CONFIG, tokenizer))
    plain = copy.deepcopy(blip2).eval()
    styles = StyleVocabulary(tokenizer, ["noto", "black_cats"], ["Noto"])
    efficientnet = {"name": "test_efficientnet", "pretrained": False} if kind else None
    gating = {"kind": kind, "per_head": per_head, "init_scale": 1.0}
    model = Blip2OPTGated(blip2, tokenizer, styles, efficientnet, gating, MAPPER, lora, trained)
    return model.eval(), plain


def batch_of(model, answers=("Noto", "two black cats"), seed=1):
    encoded = [
        model.prompts.encode(question, answer)
        for question, answer in zip(("In which style is this drawn?", "How many?"), answers)
    ]
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return {"image": image, **model.prompts.collate(encoded)}


def run(model, batch):
    return model(**{name: value for name, value in batch.items() if name != "labels"})


def opened(kind, per_head):
    """A model whose gates do something: at the start they are the identity."""
    model, _ = build(kind, per_head)
    torch.manual_seed(3)
    for gate in model.gates:
        for parameter in gate.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return model


def write_blip2(folder: Path, data: Path) -> Path:
    """A folder as save_pretrained writes it, whose training takes milliseconds a step."""
    with (data / "train.csv").open() as file:
        texts = [f"Question: {row['question']} Answer: {row['answer']}\n" for row in csv.DictReader(file)]
    tokenizer = make_tokenizer(texts, 600)
    torch.manual_seed(0)
    build_blip2(fit_config(CONFIG, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def blip2_flags(data: Path, blip2: Path, cache: Path) -> list[str]:
    """Flags of a tiny run, but for its folders and its length."""
    return [
        *flags("data.", root=data, cache_dir=cache),
        *flags("model.", blip2=blip2),
        *flags("model.efficientnet.", name="test_efficientnet", weights=False, image_size=32),
        *flags("model.prompt_mapper.", hidden=32),
        *flags("training.", warmup_steps=2, log_steps=1, save_steps=1, device="cpu"),
    ]
