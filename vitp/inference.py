"""Ask a trained model about images.

python vitp/inference.py image.png "What is in this picture?" --model_name_or_path work_dirs/mine [--json]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from PIL import Image
from transformers.utils import logging

from common.cli.errors import run_script
from common.images.io import open_image
from common.images.tiling import Tiling
from common.text.chat_labels import LabelledTokens, splice_images
from common.text.conversations import IMAGE, Conversation, Turn
from common.text.padding import pad
from common.training.device import choose_device
from vitp.chat_template import ChatTemplate, prepare_tokenizer
from vitp.checkpoint import fit_to_images, fit_to_tokenizer, load_model, read_json
from vitp.model import VisualInstructionModel
from vitp.processing import read_image_settings, read_tokenizer


class VQAPredictor:
    """A model's folder, ready to answer questions about images.

    conv_style: as in training; None for the template in the folder, and for InternVL's own layout internvl2_5.
    """

    def __init__(self, folder: str, device: torch.device, max_tiles: int | None = None, conv_style: str | None = None):
        self.model: VisualInstructionModel = load_model(folder, dtype=_dtype(device)).to(device).eval()
        tokenizer = read_tokenizer(folder)
        if conv_style is None:
            own = tokenizer.chat_template and read_json(Path(folder) / "config.json")["model_type"] == "internvl"
            conv_style = "chat" if own else "internvl2_5"
        prepare_tokenizer(tokenizer, conv_style)
        self.template = ChatTemplate(tokenizer, conv_style)
        tokens = fit_to_images(self.model, None)
        fit_to_tokenizer(self.model, tokenizer, self.template.end_token_id)
        settings = read_image_settings(folder)
        self.tiling = Tiling(
            self.model.config.vision_config.image_size[0],
            tokens,
            max_tiles=max_tiles or settings.get("max_patches", 12),
            mean=tuple(settings["image_mean"]),
            std=tuple(settings["image_std"]),
        )

    @torch.inference_mode()
    def __call__(
        self, asked: Sequence[tuple[Sequence[Image.Image], str]], max_new_tokens: int = 64, **generation
    ) -> list[str]:
        """[(images, question)] -> answers, in one batch. Greedy unless `generation` says otherwise."""
        prompts, pixels = [], []
        for images, question in asked:
            limit = self.tiling.limit(len(images))
            tiles = [self.tiling.pixel_values(image, limit) for image in images]
            missing = len(images) - question.count(IMAGE)
            if missing < 0:
                raise ValueError(f"{question.count(IMAGE)} {IMAGE} in the question for {len(images)} images")
            conversation = Conversation((Turn(f"{IMAGE}\n" * missing + question, ""),))
            prompt, context = self.template.prompt(conversation), self.template.context_id
            runs = [[context] * (len(tile) * self.tiling.tokens) for tile in tiles]
            prompts.append(splice_images(LabelledTokens(prompt, prompt), context, runs).input_ids)
            pixels += tiles
        ids, mask = pad(prompts, self.template.tokenizer.pad_token_id, side="left")
        device = self.model.device
        written = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            pixel_values=torch.cat(pixels).to(device, self.model.dtype) if pixels else None,
            max_new_tokens=max_new_tokens,
            **{"do_sample": False, **generation},
        )
        decoded = self.template.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in decoded]


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="inference.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("asked", nargs="+", metavar="IMAGE ... QUESTION", help="images, and the question last")
    parser.add_argument("--model_name_or_path", required=True, help="a folder that train.py wrote, or an InternVL")
    parser.add_argument("--conv_style", help="internvl2_5, chat, or a .jinja file; otherwise the folder's own template")
    parser.add_argument("--max_dynamic_patch", type=int, help="most tiles of an image; otherwise the model's own")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="length of the answer")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    *paths, question = args.asked
    if not paths or not question.strip():
        raise ValueError('expected at least one image and then a question, such as: a.png "What is this?"')
    images = [open_image(path) for path in paths]
    logging.disable_progress_bar()
    answerer = VQAPredictor(
        args.model_name_or_path, choose_device(args.device), args.max_dynamic_patch, args.conv_style
    )
    result = {"question": question, "images": paths, "answer": answerer([(images, question)], args.max_new_tokens)[0]}
    print(json.dumps(result, ensure_ascii=False) if args.json else result["answer"])
    return result


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


if __name__ == "__main__":
    run_script(main)
