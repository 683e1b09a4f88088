"""Put a LoRA adapter into its model's weights: one folder that needs no peft, and is as fast as the model was.

    python llava/merge_lora.py --model_id llava-hf/llava-1.5-7b-hf --adapter checkpoints/mine --output_dir merged

model + adapter (LoRA on the language model, the projector whole) -> W + (alpha / rank) B A in every adapted layer
"""

import argparse
import shutil
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import run_script
from llava.checkpoint import NUMBER_FORMATS, SETTINGS, load_model


def main(argv: list[str]) -> Path:
    parser = argparse.ArgumentParser(prog="merge_lora.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model_id", required=True, help="the model that the adapter was trained on")
    parser.add_argument("--adapter", required=True, help="a folder that llava/train.py wrote")
    parser.add_argument("--output_dir", type=Path, required=True, help="where the merged model goes")
    parser.add_argument(
        "--precision", default="bf16", choices=NUMBER_FORMATS, help="number format of the merged weights"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args(argv)
    if (args.output_dir / "config.json").is_file():
        raise ValueError(f"{args.output_dir}: holds a model already; give --output_dir another name")
    # Added up in fp32 and rounded once: B A is small beside W, and half formats would lose part of it.
    model, processor = load_model(args.model_id, args.adapter, args.device, "fp32")
    merged = model.merge_and_unload(safe_merge=True)
    merged.to(NUMBER_FORMATS[args.precision]).save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)
    if (Path(args.adapter) / SETTINGS).is_file():
        shutil.copy(Path(args.adapter) / SETTINGS, args.output_dir)
    print(f"merged model in {args.output_dir}")
    return args.output_dir


if __name__ == "__main__":
    run_script(main)
