"""Merge a LoRA adapter into its model: one folder that needs no peft and runs at the speed of the base model.

    python llava/merge_lora.py --model_id llava-hf/llava-1.5-7b-hf --adapter checkpoints/mine --output_dir merged

model + adapter (LoRA on the language model, the whole projector) -> W + (alpha / rank) B A in every adapted layer
"""

import sys
from pathlib import Path
from typing import Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.text.files import write_json
from common.training.trained_on import TRAINED_ON
from llava.checkpoint import NUMBER_FORMATS, load_image_text_model, trained_system_prompt
from llava.style_tower import save_style_encoder


@tool
def main(
    *,
    model_id: str,  # the model that the adapter was trained on
    adapter: Path,  # a folder that llava/train.py wrote
    output_dir: Path,  # of the merged model
    precision: Literal["bf16", "fp16", "fp32"] = "bf16",  # number format of the merged weights
    device: str = "auto",
) -> Path:
    if (output_dir / "config.json").is_file():
        raise ValueError(f"{output_dir}: already holds a model; choose another --output_dir")
    # Added in fp32 and rounded once: B A is small compared with W, and half precision would lose part of it.
    model, processor = load_image_text_model(model_id, str(adapter), device, "fp32")
    merged = model.merge_and_unload(safe_merge=True).to(NUMBER_FORMATS[precision])
    merged.save_pretrained(output_dir)
    save_style_encoder(merged, output_dir)
    processor.save_pretrained(output_dir)
    write_json(output_dir / TRAINED_ON, {"system_prompt": trained_system_prompt(str(adapter))})
    print(f"the merged model is in {output_dir}")
    return output_dir


if __name__ == "__main__":
    run_script(main)
