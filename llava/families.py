"""Model families: which of transformers' image-text-to-text models llava/ works with, and why not with others.

model type of a config -> nothing, or ValueError before weights are loaded

A family is supported once tests/test_llava_families.py finds descriptions, probabilities, losses and adapters of a tiny
model of it equal to those by its publisher's way: processor.apply_chat_template, generate and forward, one at a time.
"""

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

SUPPORTED = (
    *("aria", "aya_vision", "cohere2_vision", "deepseek_vl", "exaone4_5", "gemma3", "gemma4", "glm46v", "glm4v"),
    *("idefics3", "internvl", "janus", "lfm2_vl", "llama4", "llava", "llava_next", "llava_onevision", "mistral3"),
    *("ovis2", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_vl", "qwen3_vl_moe", "smolvlm", "vipllava"),
)
REASONS = {
    "its image enters by cross-attention": ("mllama", "idefics", "evolla"),
    "it is an encoder-decoder": (
        *("florence2", "pix2struct", "pp_formulanet", "t5gemma2", "udop", "vision-encoder-decoder"),
    ),
    "it continues a text and has no chat template": (
        *("blip", "blip-2", "chameleon", "fuyu", "git", "instructblip", "instructblipvideo", "kosmos-2", "kosmos-2.5"),
        *("paligemma",),
    ),
    "its processor changes the words behind an image": ("idefics2",),
    "its processor takes no images of different shapes together": ("perception_lm",),
    "its processor begins every text with a token of its own": ("molmo2",),
    "it computes the logits of all tokens": ("video_llama_3",),
}
# Their generate() counts positions of its own, so a prompt cannot be continued from a padded prefix.
WITHOUT_PREFIX = ("exaone4_5",)


def check_family(model_id: str, config: PreTrainedConfig) -> None:
    """ValueError for a model type that is not supported."""
    kind = config.model_type
    if kind in SUPPORTED:
        return
    known = {name: reason for reason, names in REASONS.items() for name in names}
    takes_images = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    reason = known.get(kind, "it is not tested here" if takes_images else "it is no model of images and text")
    raise ValueError(f"{model_id}: model type '{kind}' is not supported ({reason}); supported: {', '.join(SUPPORTED)}")
