"""ViTP: a random model and batch, a checkpoint in InternVL's layout, drawn conversations and the flags of a run."""

import json
from pathlib import Path

import torch
from conftest import flags
from safetensors.torch import load_file, save_file
from transformers import InternVLVisionConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from common.samples.layouts import create_sample_dataset
from vitp import demo
from vitp.model import VisualInstructionConfig, VisualInstructionModel

# Names of tensors in a trained model's file.
VISION_PREFIX, PROJECTOR_PREFIX = "model.vision_tower.", "model.multi_modal_projector."
LANGUAGE_PREFIX = "model.language_model."
CONTEXT_ID, VOCABULARY = 60, 64
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def tiny_model(text=Qwen2Config, seed=0, **vision) -> VisualInstructionModel:
    """28-pixel tiles, patches of 7: 16 patches, 4 tokens a tile."""
    torch.manual_seed(seed)
    settings = {**VISION, "image_size": 28, "patch_size": 7, "attention_bias": True, **vision}
    config = VisualInstructionConfig(
        vision_config=InternVLVisionConfig(**settings),
        text_config=text(**TEXT),
        image_token_id=CONTEXT_ID,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    model = VisualInstructionModel(config)
    for parameter in model.parameters():  # nothing at zero or one: every tensor has to show in the output
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def tiny_batch(tiles=(1, 2), text=6, seed=0) -> dict:
    """Rows of `text` tokens with that many tiles in the middle, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    rows, labels = [], []
    for count in tiles:
        words = torch.randint(0, 50, (text,), generator=generator)
        row = torch.cat([words[:2], torch.full((4 * count,), CONTEXT_ID), words[2:]])
        rows.append(row)
        labels.append(torch.cat([torch.full((len(row) - 3,), -100), row[-3:]]))
    pad = torch.nn.utils.rnn.pad_sequence
    batch = {
        "input_ids": pad(rows, batch_first=True, padding_value=0),
        "labels": pad(labels, batch_first=True, padding_value=-100),
        "attention_mask": pad([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True),
    }
    if sum(tiles):
        batch["pixel_values"] = torch.randn(sum(tiles), 3, 28, 28, generator=generator)
    return batch


def packed(batch: dict) -> dict:
    """The rows of a batch one behind the other in one sequence."""
    real = [row.bool() for row in batch["attention_mask"]]
    join = {
        name: torch.cat([row[mask] for row, mask in zip(batch[name], real)])[None] for name in ("input_ids", "labels")
    }
    return {
        **join,
        "pixel_values": batch.get("pixel_values"),
        "position_ids": torch.cat([torch.arange(int(mask.sum())) for mask in real])[None],
        "sample_ids": torch.cat([torch.full((int(mask.sum()),), index) for index, mask in enumerate(real)])[None],
    }


def internvl_folder(folder, internlm2=False, tied=False, seed=0) -> dict:
    """A random checkpoint in InternVL's own layout, config.json with the junk of the real one.

    -> its tensors, those of the language model under the names of Qwen2 or Llama"""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator) * 0.3

    hidden, mlp, width = 32, 48, TEXT["hidden_size"]
    weights = {
        "vision_model.embeddings.class_embedding": random(1, 1, hidden),
        "vision_model.embeddings.patch_embedding.weight": random(hidden, 3, 7, 7),
        "vision_model.embeddings.patch_embedding.bias": random(hidden),
        "vision_model.embeddings.position_embedding": random(1, 17, hidden),
        "mlp1.0.weight": random(4 * hidden),
        "mlp1.0.bias": random(4 * hidden),
        "mlp1.1.weight": random(width, 4 * hidden),
        "mlp1.1.bias": random(width),
        "mlp1.3.weight": random(width, width),
        "mlp1.3.bias": random(width),
    }
    for layer in range(3):
        matrices = {"attn.qkv": (3 * hidden, hidden), "attn.proj": (hidden, hidden)}
        matrices |= {"mlp.fc1": (mlp, hidden), "mlp.fc2": (hidden, mlp)}
        shapes = {f"{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
        shapes |= dict.fromkeys(("ls1", "ls2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"), (hidden,))
        for name, shape in shapes.items():
            weights[f"vision_model.encoder.layers.{layer}.{name}"] = random(*shape)
    said = {
        **TEXT,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "bfloat16",
        "_name_or_path": "./pretrained/x",
        "moe_config": None,
        "use_bfloat16": True,
        "attn_implementation": "flash_attention_2",
        "tie_word_embeddings": tied,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
    }
    language = Qwen2ForCausalLM(Qwen2Config(**TEXT)) if not internlm2 else LlamaForCausalLM(LlamaConfig(**TEXT))
    for name, value in language.state_dict().items():
        weights[f"language_model.{name}"] = random(*value.shape)
    if tied:
        weights["language_model.lm_head.weight"] = weights["language_model.model.embed_tokens.weight"].clone()
    if internlm2:
        said |= {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False}
    folder.mkdir(parents=True, exist_ok=True)
    vision = {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "drop_path_rate": 0.1,
        "hidden_size": 32,
        "image_size": 28,
        "patch_size": 7,
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-6,
        "initializer_range": 1e-10,
        "use_flash_attn": True,
        "norm_type": "layer_norm",
        "qkv_bias": True,
        "qk_normalization": False,
        "num_hidden_layers": 3,
        "intermediate_size": 48,
    }
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "downsample_ratio": 0.5,
        "select_layer": -1,
        "force_image_size": 28,
        "llm_config": said,
        "vision_config": vision,
        "template": "internvl2_5",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(as_internlm2(weights) if internlm2 else weights, folder / "model.safetensors")
    return weights


RENAMED = {
    "language_model.model.embed_tokens.weight": "language_model.model.tok_embeddings.weight",
    "language_model.lm_head.weight": "language_model.output.weight",
    **{
        f"language_model.model.layers.{layer}.{llama}": f"language_model.model.layers.{layer}.{internlm}"
        for layer in range(2)
        for llama, internlm in {
            "mlp.gate_proj.weight": "feed_forward.w1.weight",
            "mlp.up_proj.weight": "feed_forward.w3.weight",
            "mlp.down_proj.weight": "feed_forward.w2.weight",
            "input_layernorm.weight": "attention_norm.weight",
            "post_attention_layernorm.weight": "ffn_norm.weight",
        }.items()
    },
}


def as_internlm2(weights) -> dict:
    """Llama's tensors under InternLM2's names; each key-value group's queries, key and value are rows one after
    the other (2 groups of 2 queries, 6 wide)."""
    result = {RENAMED.get(name, name): value for name, value in weights.items() if ".self_attn." not in name}
    for layer in range(2):
        at = f"language_model.model.layers.{layer}"
        result[f"{at}.attention.wo.weight"] = weights[f"{at}.self_attn.o_proj.weight"]
        query, key, value = (weights[f"{at}.self_attn.{part}_proj.weight"] for part in "qkv")
        rows = []
        for group in range(2):
            rows += [
                query[12 * group : 12 * group + 12],
                key[6 * group : 6 * group + 6],
                value[6 * group : 6 * group + 6],
            ]
        result[f"{at}.attention.wqkv.weight"] = torch.cat(rows)
    return result


def write_vitp(folder: Path) -> Path:
    """A folder: data/meta.json of drawn scenes, parts/ of a very small model."""
    create_sample_dataset(folder / "data", 24, 0, "conversations", 32)
    records = (folder / "data" / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = demo.train_tokenizer(
        [turn["value"] for line in records for turn in json.loads(line)["conversations"]], 500
    )
    demo.write_parts(folder / "parts", tokenizer, width=32, layers=2, size=32)
    augmented = {"root": "images", "annotation": "conversations.jsonl", "data_augment": True}
    (folder / "data" / "augmented.json").write_text(json.dumps({"sample": augmented}))
    return folder


def vitp_flags(parts: Path, output: Path, **more) -> list[str]:
    """Flags of a run of `parts`; None in `more` leaves one away."""
    settings = {
        "vision_config": parts / "parts" / "vision.json",
        "llm": parts / "parts" / "config.json",
        "meta_path": parts / "data" / "meta.json",
        "output_dir": output,
        "logging_dir": output / "logs",
        "cache_dir": output / "cache",
        "max_steps": 4,
        "use_cpu": True,
        "per_device_train_batch_size": 4,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "save_steps": 100,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "max_dynamic_patch": 1,
        "max_seq_length": 700,
        "disable_tqdm": "true",
        **more,
    }
    return flags(**settings)


def weights(folder) -> dict:
    return load_file(folder / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
