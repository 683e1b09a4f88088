"""The model as a Hugging Face CLIP folder, and back: config.json, model.safetensors, tokenizer, preprocessor.

transformers' names <-> open_clip's names: q, k, v apart <-> one matrix; projections transposed; else a rename

Only for networks with a vision transformer and CLIP's text transformer: transformers has no other CLIP.
"""

import json
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig
from transformers import CLIPModel as TransformersCLIP

from clip.model import CLIPModel

# ours -> theirs; {n} is the number of a block, at the same place in both.
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
VISION = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
TOWERS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}


def to_transformers_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's state dict -> transformers' CLIPModel's."""
    found: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        tower = next((prefix for prefix in TOWERS if name.startswith(prefix)), None)
        if name in TRANSPOSED:
            found[TRANSPOSED[name]] = value.T.contiguous()
        elif tower is None:
            found[_renamed(name, VISION | TEXT)] = value
        else:
            number, rest = name.removeprefix(tower).split(".", 1)
            block = f"{TOWERS[tower]}{number}."
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for part, piece in zip("qkv", value.chunk(3)):
                    found[f"{block}self_attn.{part}_proj.{kind}"] = piece.clone()
            else:
                found[block + _renamed(rest, BLOCK)] = value
    return found


def to_open_clip_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' CLIPModel's state dict -> open_clip's. An unknown name is an error."""
    found: dict[str, torch.Tensor] = {}
    theirs = {value: name for name, value in (VISION | TEXT).items()}
    for name, value in weights.items():
        tower = next((ours for ours, prefix in TOWERS.items() if name.startswith(prefix)), None)
        transposed = next((ours for ours, other in TRANSPOSED.items() if name == other), None)
        if name.endswith("position_ids"):  # a counter that older folders carry
            continue
        if transposed:
            found[transposed] = value.T.contiguous()
        elif tower is None:
            found[_renamed(name, theirs)] = value
        else:
            number, rest = name.removeprefix(TOWERS[tower]).split(".", 1)
            block = f"{tower}{number}."
            if rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
                continue  # taken with q
            if rest.startswith("self_attn.q_proj."):
                parts = [weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
                found[f"{block}attn.in_proj_{rest.split('.')[-1]}"] = torch.cat(parts)
            else:
                found[block + _renamed(rest, {other: ours for ours, other in BLOCK.items()})] = value
    return found


def read_huggingface(name: str | Path) -> CLIPModel:
    """A Hugging Face CLIP by folder or hub name -> our model with the same outputs."""
    source = Path(name) / "config.json"
    if not source.is_file() and (Path(name).exists() or str(name).count("/") != 1 or str(name).startswith(".")):
        raise FileNotFoundError(
            f"{name}: no model here; expected a file of clip/train.py, or a Hugging Face CLIP folder with config.json"
        )
    try:
        theirs = TransformersCLIP.from_pretrained(name, dtype=torch.float32)
        processor = CLIPImageProcessor.from_pretrained(name)
        mean, std = list(processor.image_mean), list(processor.image_std)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read as a CLIP folder ({str(error).strip().splitlines()[0]})") from error
    architecture = _architecture(theirs.config)
    tokenizer = {"kind": "clip", "context_length": architecture["text_cfg"]["context_length"]}
    facts = {"architecture": architecture, "sigmoid": False, "tokenizer": tokenizer, "mean": mean, "std": std}
    model = CLIPModel(facts=facts)
    model.network.load_state_dict(to_open_clip_names(theirs.state_dict()))
    return model


def write_huggingface(model: CLIPModel, folder: str | Path) -> None:
    """Everything that transformers' CLIPModel and CLIPProcessor load."""
    theirs = TransformersCLIP(_config(model)).eval()
    theirs.load_state_dict(to_transformers_names(model.network.state_dict()))
    theirs.save_pretrained(folder)
    size = model.image_size
    CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=model.facts["mean"],
        image_std=model.facts["std"],
    ).save_pretrained(folder)
    write_vocabulary(Path(folder), model.facts["tokenizer"]["context_length"])


def _architecture(config: CLIPConfig) -> dict:
    vision, text = config.vision_config, config.text_config
    if vision.hidden_act != text.hidden_act or vision.hidden_act not in ("quick_gelu", "gelu"):
        raise ValueError(f"activations {vision.hidden_act} and {text.hidden_act}: expected quick_gelu or gelu for both")
    # An end token of 2 is what old configs say for 'the highest number of the row'; any other is looked for itself.
    pooling = {} if text.eos_token_id == 2 else {"pool_type": "eos", "eos_id": text.eos_token_id}
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "norm_kwargs": {"eps": vision.layer_norm_eps},
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "norm_kwargs": {"eps": text.layer_norm_eps},
            **pooling,
        },
    }


def _config(model: CLIPModel) -> CLIPConfig:
    architecture = model.facts["architecture"]
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if "timm_model_name" in vision or "hf_config" in text or isinstance(vision["layers"], list):
        raise ValueError("a Hugging Face CLIP folder holds a vision transformer and CLIP's text transformer only")
    if model.network.logit_bias is not None:
        raise ValueError("a Hugging Face CLIP has no bias beside its scale; this model was trained with --loss siglip")
    shared = {"hidden_act": "quick_gelu" if architecture.get("quick_gelu") else "gelu"}
    vision_config = CLIPVisionConfig(
        hidden_size=vision["width"],
        num_hidden_layers=vision["layers"],
        image_size=vision["image_size"],
        num_attention_heads=vision["width"] // vision.get("head_width", 64),
        patch_size=vision["patch_size"],
        intermediate_size=round(vision["width"] * vision.get("mlp_ratio", 4)),
        **shared,
        layer_norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
        projection_dim=architecture["embed_dim"],
    )
    end = text["vocab_size"] - 1
    text_config = CLIPTextConfig(
        hidden_size=text["width"],
        num_hidden_layers=text["layers"],
        num_attention_heads=text["heads"],
        vocab_size=text["vocab_size"],
        max_position_embeddings=text["context_length"],
        intermediate_size=round(text["width"] * text.get("mlp_ratio", 4)),
        **shared,
        layer_norm_eps=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
        projection_dim=architecture["embed_dim"],
        bos_token_id=end - 1,
        eos_token_id=text.get("eos_id", end),
        pad_token_id=text.get("eos_id", end),
    )
    return CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=architecture["embed_dim"])


def write_vocabulary(folder: Path, context_length: int) -> None:
    """vocab.json and merges.txt from the vocabulary that comes with open_clip."""
    bpe = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in bpe.encoder.items()}
    merges = [" ".join(pair) for pair, _ in sorted(bpe.bpe_ranks.items(), key=lambda item: item[1])]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    facts = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _renamed(name: str, table: dict[str, str]) -> str:
    """The name with its longest known beginning replaced."""
    if name in table:
        return table[name]
    module, _, parameter = name.rpartition(".")
    if module not in table:
        raise ValueError(f"'{name}': not a tensor of a plain CLIP")
    return f"{table[module]}.{parameter}"
