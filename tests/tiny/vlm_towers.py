"""Tiny models of a tower, a projector and a language model, as LLaVA."""

import transformers as hf

from llava.model import CHAT_TEMPLATE, build_tokenizer, small_language, small_vision
from tiny.llava import WORDS
from tiny.vlm_parts import CHATML, COHERE, SQUARE, VISION, Family, template, text_config, tokenizer


def llava_onevision() -> Family:
    tokens = tokenizer("<|im_end|>", ["<|im_start|>"], image_token="<image>", video_token="<video>")
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=8, vision_use_head=False),
        text_config=text_config(hf.Qwen2Config, tokens),
        image_token_index=tokens.image_token_id,
        video_token_index=tokens.video_token_id,
        image_grid_pinpoints=pinpoints,
    )
    images = hf.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=pinpoints)
    video = hf.LlavaOnevisionVideoProcessor(size=SQUARE)
    form = template("<image>\n", **CHATML)
    processor = hf.LlavaOnevisionProcessor(images, tokens, video, 16, "full", form)
    return config, processor


def mistral3() -> Family:
    tokens = tokenizer("</s>", ["[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"], "<s>")
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=64, patch_size=4, head_dim=16),
        text_config=text_config(hf.MistralConfig, tokens, head_dim=16, sliding_window=None),
        image_token_index=tokens.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    images = hf.PixtralImageProcessor(patch_size=4, size={"longest_edge": 48})
    form = (
        "<s>{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ message['content'][0]['text'] + '</s>' }}{% else %}{{ '[INST]' }}"
        "{% for part in message['content'] %}{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "{{ '[/INST]' }}{% endif %}{% endfor %}"
    )
    return config, hf.PixtralProcessor(images, tokens, patch_size=4, spatial_merge_size=2, chat_template=form)


def llava_pixtral() -> Family:
    """Pixtral as mistral-community publishes it: a Llava model."""
    old, _ = mistral3()
    _, processor = mistral3()
    config = hf.LlavaConfig(
        vision_config=old.vision_config,
        text_config=old.text_config,
        image_token_index=old.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = hf.PixtralProcessor(
        processor.image_processor, processor.tokenizer, patch_size=4, chat_template=processor.chat_template
    )
    return config, processor


def aya_vision() -> Family:
    tiles = ["TILE_GLOBAL", *(f"TILE_{number}" for number in range(1, 7))]
    words = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", *tiles]
    turn = ["<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
    tokens = tokenizer("<|END_OF_TURN_TOKEN|>", [*words, *turn], "<BOS_TOKEN>")
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=4, vision_use_head=False),
        text_config=text_config(
            hf.Cohere2Config,
            tokens,
            sliding_window=16,
            head_dim=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        downsample_factor=2,
        image_token_index=tokens.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    images = hf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4)
    form = template("<image>", **COHERE)
    return config, hf.AyaVisionProcessor(images, tokens, 4, 32, downsample_factor=2, chat_template=form)


def cohere2_vision() -> Family:
    names = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "image_token": "<|IMG_PATCH|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    turn = ["<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
    tokens = tokenizer("<|END_OF_TURN_TOKEN|>", turn, "<BOS_TOKEN>", **names)
    config = hf.Cohere2VisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=4, vision_use_head=False),
        text_config=text_config(
            hf.Cohere2Config,
            tokens,
            sliding_window=16,
            head_dim=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        downsample_factor=2,
        image_token_id=tokens.image_token_id,
        alignment_intermediate_size=64,
    )
    images = hf.Cohere2VisionImageProcessor(size=SQUARE, max_patches=4, patch_size=4)
    return config, hf.Cohere2VisionProcessor(images, tokens, template("<|IMG_PATCH|>", **COHERE))


def ovis2() -> Family:
    names = ["<image>", "<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tokens = tokenizer("<|im_end|>", ["<|im_start|>", *names])
    vision = hf.models.ovis2.Ovis2VisionConfig(**VISION, image_size=32, patch_size=4, vocab_size=64, hidden_stride=2)
    config = hf.Ovis2Config(
        vision_config=vision,
        text_config=text_config(hf.Qwen2Config, tokens),
        hidden_size=32,
        vocab_size=len(tokens),
        image_token_id=tokens.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokens.convert_tokens_to_ids(names[2:]),
    )
    images = hf.Ovis2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4)
    return config, hf.Ovis2Processor(images, tokens, template("<image>\n", **CHATML), image_seq_length=16)


def deepseek_vl() -> Family:
    tokens = tokenizer("<｜end▁of▁sentence｜>", [], "<｜begin▁of▁sentence｜>", image_token="<image_placeholder>")
    config = hf.DeepseekVLConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=8),
        text_config=text_config(hf.LlamaConfig, tokens),
        image_token_id=tokens.image_token_id,
    )
    form = (
        "{% for message in messages %}{% if message['role'] != 'system' %}"
        "{{ {'user': 'User', 'assistant': 'Assistant'}[message['role']] + ': ' }}{% endif %}"
        "{% for part in message['content'] %}{{ '<image_placeholder>' if part['type'] == 'image' else part['text'] }}"
        "{% endfor %}{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )
    images = hf.DeepseekVLImageProcessor(size=SQUARE)
    return config, hf.DeepseekVLProcessor(images, tokens, form, num_image_tokens=16)


def janus() -> Family:
    names = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokens = tokenizer("<｜end▁of▁sentence｜>", [], "<｜begin▁of▁sentence｜>", **names)
    _, old = deepseek_vl()
    vision = hf.models.janus.JanusVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=32,
        num_image_tokens=16,
    )
    vq = hf.models.janus.JanusVQVAEConfig(
        embed_dim=4,
        num_embeddings=16,
        latent_channels=8,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        projection_dim=32,
        image_token_embed_dim=32,
        num_patches=4,
    )
    config = hf.JanusConfig(
        text_config=text_config(hf.LlamaConfig, tokens),
        vision_config=vision,
        vq_config=vq,
        image_token_id=tokens.image_token_id,
    )
    images = hf.JanusImageProcessor(size=SQUARE)
    form = old.chat_template.replace("User", "<|User|>").replace("Assistant", "<|Assistant|>")
    return config, hf.JanusProcessor(images, tokens, form, num_image_tokens=16)


def vipllava() -> Family:

    tokens = build_tokenizer(WORDS, 500)
    config = hf.VipLlavaConfig(
        vision_config=small_vision(32, 8, 32, 3),
        text_config=small_language(tokens, 32, 2),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        vision_feature_layers=[-2, -3],
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    images = hf.CLIPImageProcessor(size=SQUARE, do_center_crop=False)
    processor = hf.LlavaProcessor(
        images,
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return config, processor


def aria() -> Family:
    tokens = tokenizer("<|im_end|>", ["<|im_start|>"], image_token="<|img|>")
    config = hf.AriaConfig(
        vision_config=hf.Idefics3VisionConfig(**VISION, image_size=980, patch_size=140),
        text_config=text_config(
            hf.models.aria.AriaTextConfig, tokens, moe_num_experts=2, moe_topk=1, moe_num_shared_experts=1
        ),
        projector_patch_to_query_dict={49: 4},
        image_token_index=tokens.image_token_id,
    )
    images = hf.AriaImageProcessor()
    form = template("<fim_prefix><|img|><fim_suffix>", **CHATML)
    return config, hf.AriaProcessor(images, tokens, form, size_conversion={490: 4, 980: 4})
