"""Tiny models whose images are grids of patches with three positions each, and kin: Qwen-VL, GLM-V, EXAONE."""

from typing import Any

import transformers as hf

from tiny.vlm_parts import CHATML, GRID, Family, template, text_config, tokenizer

VISION_WORDS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def qwen2_vl() -> Family:
    tokens = tokenizer("<|im_end|>", ["<|im_start|>", *VISION_WORDS])
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = text_config(hf.Qwen2VLTextConfig, tokens, rope_parameters=rope)
    vision = hf.models.qwen2_vl.Qwen2VLVisionConfig(depth=2, embed_dim=32, hidden_size=32, num_heads=2, patch_size=4)
    images = hf.Qwen2VLImageProcessor(**GRID)
    video = hf.Qwen2VLVideoProcessor(**GRID)
    processor = hf.Qwen2VLProcessor(
        images, tokens, video, template("<|vision_start|><|image_pad|><|vision_end|>", **CHATML)
    )
    return hf.Qwen2VLConfig(text_config=text, vision_config=vision, **_vision_ids(tokens)), processor


def qwen2_5_vl() -> Family:
    config, old = qwen2_vl()
    tokens = old.tokenizer
    text = text_config(hf.Qwen2_5_VLTextConfig, tokens, rope_parameters=config.text_config.rope_parameters)
    vision = hf.models.qwen2_5_vl.Qwen2_5_VLVisionConfig(
        depth=2,
        hidden_size=32,
        intermediate_size=64,
        num_heads=2,
        patch_size=4,
        window_size=16,
        out_hidden_size=32,
        fullatt_block_indexes=[1],
    )
    processor = hf.Qwen2_5_VLProcessor(old.image_processor, tokens, old.video_processor, old.chat_template)
    return hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_vision_ids(tokens)), processor


def qwen3_vl() -> Family:
    config, old = qwen2_vl()
    tokens = old.tokenizer
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True, "rope_theta": 10000.0}
    text = text_config(hf.Qwen3VLTextConfig, tokens, rope_parameters=rope, head_dim=16)
    vision = hf.models.qwen3_vl.Qwen3VLVisionConfig(
        depth=2,
        hidden_size=32,
        intermediate_size=64,
        num_heads=2,
        patch_size=4,
        out_hidden_size=32,
        num_position_embeddings=64,
        deepstack_visual_indexes=[0],
    )
    processor = hf.Qwen3VLProcessor(old.image_processor, tokens, hf.Qwen3VLVideoProcessor(**GRID), old.chat_template)
    return hf.Qwen3VLConfig(text_config=text, vision_config=vision, **_vision_ids(tokens)), processor


def qwen3_vl_moe() -> Family:
    config, processor = qwen3_vl()
    text = {name: getattr(config.text_config, name) for name in ("head_dim", "rope_parameters")}
    text = text_config(
        hf.Qwen3VLMoeTextConfig,
        processor.tokenizer,
        **text,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
    )
    vision = hf.models.qwen3_vl_moe.Qwen3VLMoeVisionConfig(**config.vision_config.to_diff_dict())
    return hf.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **_vision_ids(processor.tokenizer)), processor


def qwen3_5() -> Family:
    """Every second layer is a linear attention, whose cache is a state."""
    config, processor = qwen3_vl()
    rope = config.text_config.rope_parameters | {"partial_rotary_factor": 1.0}
    text = text_config(
        hf.models.qwen3_5.Qwen3_5TextConfig,
        processor.tokenizer,
        rope_parameters=rope,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        layer_types=["linear_attention", "full_attention"],
    )
    vision = config.vision_config.to_diff_dict()
    vision.pop("deepstack_visual_indexes")
    vision = hf.models.qwen3_5.Qwen3_5VisionConfig(**vision)
    return hf.Qwen3_5Config(text_config=text, vision_config=vision, **_vision_ids(processor.tokenizer)), processor


def glm4v() -> Family:
    words = ["<|user|>", "<|assistant|>", "<|system|>", "<|begin_of_image|>", "<|image|>", "<|end_of_image|>"]
    video = ["<|begin_of_video|>", "<|video|>", "<|end_of_video|>"]
    tokens = tokenizer("<|endoftext|>", ["[gMASK]", "<sop>", *words, *video])
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    text = text_config(hf.models.glm4v.Glm4vTextConfig, tokens, rope_parameters=rope)
    vision = hf.models.glm4v.Glm4vVisionConfig(
        depth=2, hidden_size=32, intermediate_size=64, num_heads=2, patch_size=4, image_size=32, out_hidden_size=32
    )
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    form = template(image, "<|{role}|>\n", "", "[gMASK]<sop>")
    images, videos = hf.Glm4vImageProcessor(**GRID), hf.Glm4vVideoProcessor(**GRID)
    ids = {
        name: tokens.convert_tokens_to_ids(word)
        for name, word in (
            ("image_token_id", "<|image|>"),
            ("video_token_id", "<|video|>"),
            ("image_start_token_id", "<|begin_of_image|>"),
            ("image_end_token_id", "<|end_of_image|>"),
            ("video_start_token_id", "<|begin_of_video|>"),
            ("video_end_token_id", "<|end_of_video|>"),
        )
    }
    return hf.Glm4vConfig(text_config=text, vision_config=vision, **ids), hf.Glm4vProcessor(
        images, tokens, videos, form
    )


def glm46v() -> Family:
    config, old = glm4v()
    images, videos = hf.Glm46VImageProcessor(**GRID), hf.Glm46VVideoProcessor(**GRID)
    processor = hf.Glm46VProcessor(images, old.tokenizer, videos, old.chat_template)
    ids = {name: value for name, value in config.to_dict().items() if name.endswith("_token_id")}
    return hf.Glm46VConfig(text_config=config.text_config, vision_config=config.vision_config, **ids), processor


def exaone4_5() -> Family:
    config, old = qwen2_5_vl()
    tokens = old.tokenizer
    text = text_config(
        hf.Exaone4Config, tokens, sliding_window=16, head_dim=16, layer_types=["sliding_attention", "full_attention"]
    )
    vision = hf.models.exaone4_5.Exaone4_5_VisionConfig(**config.vision_config.to_diff_dict(), num_key_value_heads=2)
    ids = {name: value for name, value in _vision_ids(tokens).items() if name in ("image_token_id", "video_token_id")}
    processor = hf.Exaone4_5_Processor(old.image_processor, tokens, old.video_processor, old.chat_template)
    return hf.Exaone4_5_Config(text_config=text, vision_config=vision, **ids), processor


def _vision_ids(tokens: Any) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, tokens.convert_tokens_to_ids(VISION_WORDS)))
