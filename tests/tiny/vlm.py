"""Tiny models of other families than LLaVA's, with the processors and the shape of the chat templates of real ones.

family -> config of few layers, processor (image processor, byte-level BPE, template) -> a folder with random weights
"""

from pathlib import Path

import transformers as hf

from tiny import vlm_grids, vlm_tiles, vlm_towers
from tiny.llava import lively

FAMILIES = {
    name: getattr(module, name)
    for module, names in (
        (vlm_grids, "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 glm4v glm46v exaone4_5"),
        (vlm_tiles, "idefics3 smolvlm lfm2_vl llama4 gemma3 gemma4"),
        (vlm_towers, "llava_onevision mistral3 llava_pixtral aya_vision cohere2_vision ovis2 deepseek_vl janus"),
        (vlm_towers, "vipllava aria"),
    )
    for name in names.split()
}


def write_vlm(folder: Path, family: str) -> Path:
    config, processor = FAMILIES[family]()
    model = lively(hf.AutoModelForImageTextToText.from_config(config))
    words = processor.tokenizer.get_vocab()
    ends = [words[word] for word in (processor.tokenizer.eos_token, "<end_of_turn>") if word in words]
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
