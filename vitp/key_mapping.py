"""Names of tensors in InternVL's own checkpoints, in transformers, and in timm.

names of InternVL (vision_model.*, mlp1.*, language_model.*)      } -> names of the model here:
names of any transformers version ([model.]vision_tower.* ...)    }    model.vision_tower.*, lm_head.weight, ...
names of an InternViT alone (embeddings.*, encoder.layers.*)  <->  InternVLVisionModel, -> timm's VisionTransformer

InternVL holds query, key and value in one matrix, transformers in three; nothing else is computed, so a round trip
gives the same bits.
"""

import re

import torch
from transformers import InternVLVisionConfig

Weights = dict[str, torch.Tensor]

VISION = (  # InternViT, transformers
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.patch_embedding.", "embeddings.patch_embeddings.projection."),
    ("embeddings.position_embedding", "embeddings.position_embeddings"),
    ("encoder.layers.", "encoder.layer."),
    (".attn.proj.", ".attention.projection_layer."),
    (".attn.", ".attention."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
)
TIMM = (  # InternViT, timm
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("embeddings.position_embedding", "pos_embed"),
    ("encoder.layers.", "blocks."),
    (".ls1", ".ls1.gamma"),
    (".ls2", ".ls2.gamma"),
)
INTERNLM2 = (  # InternLM2, Llama
    ("tok_embeddings.", "embed_tokens."),
    (".attention.wo.", ".self_attn.o_proj."),
    (".feed_forward.w1.", ".mlp.gate_proj."),
    (".feed_forward.w2.", ".mlp.down_proj."),
    (".feed_forward.w3.", ".mlp.up_proj."),
    (".attention_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
)
WHOLE_MODEL = (  # pattern of any transformers version, name here
    (r"^(_orig_mod\.|module\.)+", ""),
    (r"^base_model\.model\.", ""),
    (r"\.modules_to_save\.default\.", "."),
    (r"^vision_model\.", "model.vision_tower."),
    (r"\.patch_embedding\.proj\.", ".patch_embedding."),
    (r"^(model\.)?vision_tower\.", "model.vision_tower."),
    (r"^(model\.)?multi_modal_projector\.", "model.multi_modal_projector."),
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"^language_model\.(lm_head|output)\.", "lm_head."),
    (r"^(model\.)?language_model\.(model\.)?", "model.language_model."),
)
DOWNSTREAM = "backbone.embeddings."  # ViTP's detectors and segmenters, by OpenMMLab
CLIP_NAMES = ("visual.", "module.visual.", "text.transformer.")  # OpenAI's and open_clip's
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
TOWER = "model.vision_tower."
ENCODER_PARTS = ("embeddings.", "encoder.", "layernorm.", "timm_model.")


def to_model_names(weights: Weights, heads: tuple[int, int] | None = None) -> Weights:
    """Any of the layouts -> the names of VisualInstructionModel's state_dict.

    heads: query and key-value heads of an InternLM2, which its fused matrices are split by.
    """
    vision, rest = split_vision(weights)
    result = {f"{TOWER}{name}": value for name, value in vision.items()}
    for name, value in rest.items():
        if name.endswith(".attention.wqkv.weight"):
            if heads is None:
                raise ValueError(f"{name}: an InternLM2 matrix, but the config names no internlm2 and its heads")
            queries = heads[0] // heads[1]
            # Rows of each group: its queries, then its key, then its value.
            grouped = value.unflatten(0, (heads[1], queries + 2, -1))  # (groups, queries + 2, d, D)
            for part, matrix in zip(PROJECTIONS, (grouped[:, :queries], grouped[:, -2:-1], grouped[:, -1:])):
                result[name.replace("attention.wqkv", f"self_attn.{part}")] = matrix.flatten(0, 2).contiguous()
        else:
            result[_replace(name, INTERNLM2) if name.startswith("model.language_model.") else name] = value
    return result


def split_vision(weights: Weights) -> tuple[Weights, Weights]:
    """Any of the layouts, or a vision encoder alone -> encoder, under its names in transformers; rest of the model.

    ValueError names a tensor that belongs to neither.
    """
    if any(name.startswith(DOWNSTREAM) for name in weights):
        return _split_downstream(weights)
    alone = not any(re.search(r"vision_(model|tower)\.", name) for name in weights)
    vision, rest = {}, {}
    for name, value in weights.items():
        for pattern, ours in WHOLE_MODEL:
            name = re.sub(pattern, ours, name)
        if name.startswith(TOWER) or (alone and name.startswith(ENCODER_PARTS)):
            vision[name.removeprefix(TOWER)] = value
        elif name.startswith(("model.multi_modal_projector.", "model.language_model.", "lm_head.")):
            rest[name] = value
        elif name.startswith(CLIP_NAMES):
            raise ValueError(
                f"{name}: a tensor of CLIP, whose files clip/ reads; its image towers have names of timm's, such as "
                "vit_base_patch32_clip_224.openai"
            )
        else:
            raise ValueError(
                f"{name}: a tensor of no InternVL; expected the names of InternVL, transformers or InternViT (weights "
                "of timm's are a folder of timm's, local-dir:FOLDER, and for retrieval also NAME:FILE)"
            )
    is_internvit = any(name.startswith("encoder.layers.") for name in vision)
    return (vit_to_transformers(vision) if is_internvit else vision), rest


def _split_downstream(weights: Weights) -> tuple[Weights, Weights]:
    """A detector or segmenter of ViTP -> the InternViT in it, without class token; its adapter, neck and heads."""
    vision, rest = {}, {}
    for name, value in weights.items():
        inner = name.removeprefix("backbone.")
        if inner != name and inner.startswith(("embeddings.", "layers.")):
            vision[inner.replace("layers.", "encoder.layers.", 1)] = value
        else:
            rest[name] = value
    return vit_to_transformers(vision), rest


def vit_to_transformers(weights: Weights) -> Weights:
    """InternViT alone -> InternVLVisionModel."""
    result = {}
    for name, value in weights.items():
        if ".attn.qkv." in name:
            for part, matrix in zip(PROJECTIONS, value.chunk(3)):
                result[_replace(name.replace(".qkv.", f".{part}."), VISION)] = matrix.contiguous()
        else:
            result[_replace(name, VISION)] = value
    return result


def vit_from_transformers(weights: Weights) -> Weights:
    """InternVLVisionModel -> InternViT, in the order of its own state_dict."""
    back = [(theirs, ours) for ours, theirs in VISION]
    result = {}
    for name, value in weights.items():
        if ".q_proj." in name:
            value = torch.cat([weights[name.replace("q_proj", part)] for part in PROJECTIONS])
            name = name.replace("q_proj", "qkv")
        if name.rsplit(".", 2)[-2] not in PROJECTIONS:
            result[_replace(name, back)] = value
    return result


def vit_to_timm(weights: Weights) -> Weights:
    """InternViT -> timm's VisionTransformer with layer scale and no final norm."""
    if any(".q_norm." in name for name in weights):
        raise ValueError("timm has no name for a norm of queries and keys over all heads; use --format internvit or hf")
    return {_replace(name, TIMM): value for name, value in weights.items()}


def timm_arguments(config: InternVLVisionConfig) -> dict:
    """Arguments that build the same network as timm.models.VisionTransformer."""
    if config.norm_type != "layer_norm" or config.hidden_act != "gelu" or not config.use_mean_pooling:
        raise ValueError(f"timm's VisionTransformer has no {config.norm_type}, {config.hidden_act}; use --format hf")
    return {
        "img_size": config.image_size[0],
        "patch_size": config.patch_size[0],
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.attention_bias,
        "init_values": config.layer_scale_init_value,
        "final_norm": False,
        "num_classes": 0,
    }


def vision_config(weights: Weights, hints: dict) -> InternVLVisionConfig:
    """Config of an InternViT: sizes from its tensors, the rest from its config.json.

    weights: under transformers' names. hints: num_attention_heads, which no tensor shows, and further settings.
    """
    kernel = weights.get("embeddings.patch_embeddings.projection.weight")
    table = weights.get("embeddings.position_embeddings")
    if kernel is None or table is None or not any(name.startswith("encoder.layer.0.") for name in weights):
        raise ValueError(f"not the weights of an InternViT; their names begin with {', '.join(sorted(weights)[:3])}")
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    first = {name.removeprefix("encoder.layer.0."): value for name, value in weights.items() if ".layer.0." in name}
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side + 1 != table.shape[1]:
        raise ValueError(f"{table.shape[1]} positions: expected a class token and a square of patches")
    heads = hints.get("num_attention_heads")
    if not heads or kernel.shape[0] % heads:
        raise ValueError(f"num_attention_heads {heads}: the config must name it, and it must divide {kernel.shape[0]}")
    return InternVLVisionConfig(
        hidden_size=kernel.shape[0],
        num_channels=kernel.shape[1],
        patch_size=[kernel.shape[2], kernel.shape[3]],
        image_size=[side * kernel.shape[2], side * kernel.shape[3]],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=first["mlp.fc1.weight"].shape[0],
        attention_bias="attention.q_proj.bias" in first,
        use_qk_norm="attention.q_norm.weight" in first,
        norm_type="layer_norm" if "layernorm_before.bias" in first else "rms_norm",
        use_mean_pooling="layernorm.weight" not in weights,  # a final norm behind the blocks
        hidden_act=hints.get("hidden_act", "gelu"),
        layer_norm_eps=hints.get("layer_norm_eps", 1e-6),
        attention_dropout=hints.get("attention_dropout", 0.0),
        projection_dropout=hints.get("projection_dropout", hints.get("dropout", 0.0)),
        layer_scale_init_value=hints.get("layer_scale_init_value", hints.get("initializer_factor", 0.1)),
    )


def _replace(name: str, table) -> str:
    for old, new in table:
        name = name.replace(old, new)
    return name
