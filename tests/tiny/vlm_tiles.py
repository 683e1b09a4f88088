"""Tiny models whose images become tiles, named by rows and columns, or soft tokens: Idefics 3, LFM2, Llama 4, Gemma."""

from typing import Any

import transformers as hf

from tiny.vlm_parts import CHATML, SQUARE, VISION, Family, template, text_config, tokenizer

GEMMA = {"start": "<start_of_turn>{role}\n", "end": "<end_of_turn>\n", "bos": "<bos>", "assistant": "model"}


def _idefics_tokens() -> Any:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    names = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    return tokenizer("<end_of_utterance>", ["<|im_start|>", *rows], **names)


def idefics3(kind: str = "Idefics3") -> Family:
    tokens = _idefics_tokens()
    text = text_config(hf.LlamaConfig, tokens)
    vision = {**VISION, "image_size": 32, "patch_size": 4}
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    form = template("<image>", "<|im_start|>{role}: ", "<end_of_utterance>\n", user="User", assistant="Assistant")
    images = getattr(hf, f"{kind}ImageProcessor")(**sizes)
    video = [hf.SmolVLMVideoProcessor(**sizes)] if kind == "SmolVLM" else []
    processor = getattr(hf, f"{kind}Processor")(images, tokens, *video, image_seq_len=16, chat_template=form)
    config = getattr(hf, f"{kind}Config")(
        text_config=text,
        vision_config=vision,
        scale_factor=2,
        image_token_id=tokens.image_token_id,
        pad_token_id=tokens.pad_token_id,
        tie_word_embeddings=False,
    )
    return config, processor


def smolvlm() -> Family:
    return idefics3("SmolVLM")


def lfm2_vl() -> Family:
    rows = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    names = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
    }
    tokens = tokenizer("<|im_end|>", ["<|im_start|>", *rows], "<|startoftext|>", **names)
    text = text_config(hf.Lfm2Config, tokens, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(**VISION, patch_size=4, num_patches=64, vision_use_head=False),
        text_config=text,
        image_token_id=tokens.image_token_id,
        projector_hidden_size=32,
    )
    images = hf.Lfm2VlImageProcessor(
        encoder_patch_size=4, tile_size=32, max_tiles=4, min_image_tokens=4, max_image_tokens=16
    )
    return config, hf.Lfm2VlProcessor(images, tokens, template("<image>", **CHATML, bos="<|startoftext|>"))


def llama4() -> Family:
    words = [
        "<|header_start|>",
        "<|header_end|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|image|>",
        "<|patch|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    ]
    tokens = tokenizer("<|eot|>", words, "<|begin_of_text|>")
    text = text_config(
        hf.Llama4TextConfig,
        tokens,
        intermediate_size_mlp=64,
        head_dim=16,
        num_local_experts=2,
        attention_chunk_size=64,
        num_hidden_layers=4,
        no_rope_layer_interval=4,
    )
    vision = hf.Llama4VisionConfig(
        **VISION | {"intermediate_size": 128},
        image_size=32,
        patch_size=8,
        vision_output_dim=32,
        projector_input_dim=32,
        projector_output_dim=32,
    )
    config = hf.Llama4Config(
        vision_config=vision,
        text_config=text,
        image_token_index=tokens.convert_tokens_to_ids("<|patch|>"),
        boi_token_index=tokens.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tokens.convert_tokens_to_ids("<|image_end|>"),
    )
    images = hf.Llama4ImageProcessor(size=SQUARE, max_patches=4)
    form = template("<|image|>", "<|header_start|>{role}<|header_end|>\n\n", "<|eot|>", "<|begin_of_text|>")
    return config, hf.Llama4Processor(images, tokens, 8, chat_template=form)


def gemma3() -> Family:
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokens = tokenizer("<eos>", ["<start_of_turn>", "<end_of_turn>"], "<bos>", **names)
    text = text_config(
        hf.Gemma3TextConfig,
        tokens,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    vision = hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=8)
    config = hf.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=tokens.image_token_id,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
    )
    form = template("<start_of_image>", **GEMMA)
    return config, hf.Gemma3Processor(hf.Gemma3ImageProcessor(size=SQUARE), tokens, form, image_seq_length=4)


def gemma4() -> Family:
    names = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    tokens = tokenizer("<eos>", ["<start_of_turn>", "<end_of_turn>"], "<bos>", **names)
    images = hf.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    video = hf.Gemma4VideoProcessor(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    audio = hf.Gemma4AudioFeatureExtractor()
    processor = hf.Gemma4Processor(audio, images, tokens, video, template("<|image|>", **GEMMA), image_seq_length=70)
    text = text_config(
        hf.Gemma4TextConfig,
        tokens,
        head_dim=16,
        global_head_dim=16,
        sliding_window=16,
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        use_bidirectional_attention="vision",
        vocab_size_per_layer_input=len(tokens),
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=2,
    )
    vision = hf.Gemma4VisionConfig(
        **VISION, num_key_value_heads=2, head_dim=16, patch_size=4, pooling_kernel_size=2, position_embedding_size=64
    )
    ids = {f"{name}_id": getattr(tokens, f"{name}_id") for name in ("boi_token", "eoi_token", "image_token")}
    config = hf.Gemma4Config(
        text_config=text,
        vision_config=vision,
        **ids,
        video_token_id=processor.video_token_id,
        audio_token_id=tokens.audio_token_id,
    )
    return config, processor
