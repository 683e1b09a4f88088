"""Checkpoint of LAVIS's BLIP-2 with OPT to a folder that --model.blip2 takes.

    python tools/convert_lavis.py blip2_pretrained_opt2.7b.pth --base Salesforce/blip2-opt-2.7b --output_dir folder

file {"model": {LAVIS's name: tensor}} -> transformers' names -> laid over `base` -> config, weights, tokenizer

LAVIS stores trained parts only: Q-Former, queries, projection and the vision tower's last norm, and the tower itself if
it was fine-tuned. The language model, and a frozen tower, are those of `base`.
"""

import re
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from blip2_gated.backbone import read_blip2
from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.models.weight_files import read_weights

# LAVIS's names -> those of Blip2ForConditionalGeneration, as transformers' own conversion script has them.
NAMES = (
    (r"^visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"^visual_encoder\.blocks\.(\d+)\.norm", r"vision_model.encoder.layers.\1.layer_norm"),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj", r"vision_model.encoder.layers.\1.self_attn.projection"),
    (r"^visual_encoder\.blocks\.(\d+)\.attn", r"vision_model.encoder.layers.\1.self_attn"),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp", r"vision_model.encoder.layers.\1.mlp"),
    (r"^ln_vision", "vision_model.post_layernorm"),
    (r"^Qformer\.bert\.embeddings\.LayerNorm", "qformer.layernorm"),
    (r"^Qformer\.bert\.(.*attention)\.self\.", r"qformer.\1.attention."),
    (r"^Qformer\.bert\.", "qformer."),
    (r"^opt_proj", "language_projection"),
    (r"^opt_model", "language_model"),
)
CONSTANTS = "Qformer.bert.embeddings.position_ids"
TRAINED = ("query_tokens", "qformer.", "language_projection.", "vision_model.post_layernorm.")
TOWER, LANGUAGE = "vision_model.", "language_model."


@tool
def main(
    checkpoint: Path,  # blip2_pretrained_opt2.7b.pth, blip2_caption_opt2.7b.pth, or one of a run of LAVIS
    *,
    base: str,  # Salesforce/blip2-opt-2.7b or its like, with the same OPT and image size
    output_dir: Path,  # of the converted model
) -> Path:
    if (output_dir / "config.json").is_file():
        raise ValueError(f"{output_dir}: already holds a model; choose another --output_dir")
    weights = to_transformers_names(read_weights(checkpoint))
    model, tokenizer = read_blip2(base)
    expected = model.state_dict()
    if unknown := sorted(weights.keys() - expected.keys()):
        raise ValueError(f"{checkpoint}: {unknown[0]} and {len(unknown) - 1} others have no place in a BLIP-2 with OPT")
    # A tower or language model is in the file as a whole or not at all.
    parts = (*TRAINED, *(part for part in (TOWER, LANGUAGE) if any(_is_part(name, part) for name in weights)))
    needed = {name for name in expected for part in parts if _is_part(name, part)}
    if missing := sorted(needed - weights.keys()):
        raise ValueError(
            f"{checkpoint}: {missing[0]} and {len(missing) - 1} others are missing; expected a BLIP-2 with OPT of LAVIS"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{checkpoint}: {name} is {tuple(tensor.shape)}, and {tuple(expected[name].shape)} in --base {base}; "
                "choose a base with the same image size and language model"
            )
    model.load_state_dict({**expected, **weights})
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    print(f"the model is in {output_dir}; use it with --model.blip2 {output_dir}")
    return output_dir


def to_transformers_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LAVIS's tensors under transformers' names; names that are not LAVIS's stay as they are."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        pattern, replacement = next((rule for rule in NAMES if re.match(rule[0], name)), ("", ""))
        renamed[re.sub(pattern, replacement, name, count=1)] = tensor
    renamed.pop(CONSTANTS.replace("Qformer.bert", "qformer"), None)
    for name in [name for name in renamed if name.endswith(".q_bias")]:  # keys have no bias
        query, value = renamed.pop(name), renamed.pop(name.replace("q_bias", "v_bias"))
        renamed[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    return renamed


def _is_part(name: str, part: str) -> bool:
    """Whether a tensor belongs to a part; the tower's last norm is a part of its own."""
    return name.startswith(part) and not (part == TOWER and name.startswith("vision_model.post_layernorm."))


if __name__ == "__main__":
    run_script(main)
