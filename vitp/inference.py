"""Answers of a trained model to questions about images.

python vitp/inference.py image.png "What is in this picture?" --model_name_or_path work_dirs/mine [--json]
"""

import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import PositiveInt
from PIL import Image
from transformers.utils import logging

from common.cli.errors import run_script
from common.cli.paths import find_from_root
from common.cli.tool_parser import tool
from common.images.io import open_image
from common.models.model_config import read_model_config
from common.models.weight_files import weights_folder
from common.text.chat_labels import LabelledTokens, splice_images
from common.text.conversations import IMAGE, Conversation, Turn
from common.text.padding import pad
from common.training.device import choose_device
from vitp.checkpoint import load_model
from vitp.processing import bundle_model, read_image_settings, read_tokenizer


class VQAPredictor:
    """A model that answers questions about images.

    path: its folder, or a file of weights in it. conv_style: as in training; None for the template in the folder, and
    for InternVL's own layout internvl2_5.
    """

    def __init__(
        self, path: str | Path, device: torch.device, max_tiles: int | None = None, conv_style: str | None = None
    ):
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        path = find_from_root(str(path))
        model = load_model(path, dtype=torch.bfloat16 if half else torch.float32).to(device).eval()
        folder = weights_folder(path)
        tokenizer, settings = read_tokenizer(str(folder)), read_image_settings(folder)
        if conv_style is None:
            saved = (
                tokenizer.chat_template and read_model_config(folder / "config.json").get("model_type") == "internvl"
            )
            conv_style = "chat" if saved else "internvl2_5"
        self.model, self.template, self.tiling = bundle_model(
            model, tokenizer, settings, conv_style, max_tiles=max_tiles or settings.get("max_patches", 12)
        )

    @torch.inference_mode()
    def __call__(
        self,
        requests: Sequence[tuple[Sequence[Image.Image], str]],
        max_new_tokens: int = 64,
        systems: Sequence[str | None] = (),
        **generation,
    ) -> list[str]:
        """[(images, question)] -> answers, in one batch. Greedy unless `generation` says otherwise.

        systems: system turns, one for each request; None for the template's own.
        """
        prompts, pixels = [], []
        for images, question in requests:
            missing = len(images) - question.count(IMAGE)
            if missing < 0:
                raise ValueError(f"{question.count(IMAGE)} {IMAGE} in the question for {len(images)} images")
            limit = self.tiling.limit(len(images))
            tiles = [self.tiling.pixel_values(open_image(image), limit) for image in images]
            prompt = self.template.prompt(Conversation((Turn(f"{IMAGE}\n" * missing + question, ""),)))
            runs = [[self.template.context_id] * (len(tile) * self.tiling.tokens) for tile in tiles]
            prompts.append(splice_images(LabelledTokens(prompt, prompt), self.template.context_id, runs).input_ids)
            pixels += tiles
        ids, mask = pad(prompts, self.template.tokenizer.pad_token_id, side="left")
        device = self.model.device
        generated = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            pixel_values=torch.cat(pixels).to(device, self.model.dtype) if pixels else None,
            max_new_tokens=max_new_tokens,
            **{"do_sample": False, **generation},
        )
        answers = self.template.tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    def prompt(self, question: str, images: int, system: str | None = None) -> list[int]:
        """Token ids, with one placeholder an image; images without an <image> in the question are put before it.

        ValueError for more <image> than images, and for text that looks like the chat template's own.
        """
        missing = images - question.count(IMAGE)
        if missing < 0:
            raise ValueError(f"{question.count(IMAGE)} {IMAGE} in the question for {images} images")
        return self.template.prompt(Conversation((Turn(f"{IMAGE}\n" * missing + question, ""),), system=system))


@tool
def main(
    requests: list[str],  # images, and the question last
    *,
    model_name_or_path: str,  # a folder that train.py wrote, or an InternVL
    conv_style: str | None = None,  # internvl2_5, chat, or a .jinja file; otherwise the folder's own template
    max_dynamic_patch: PositiveInt | None = None,  # most tiles of an image; otherwise the model's own
    max_new_tokens: PositiveInt = 256,  # length of the answer
    device: str = "auto",
    json: bool = False,
) -> dict:
    *paths, question = requests
    if not paths or not question.strip():
        raise ValueError('expected at least one image and then a question, such as: a.png "What is this?"')
    images = [open_image(path) for path in paths]
    logging.disable_progress_bar()
    predictor = VQAPredictor(model_name_or_path, choose_device(device), max_dynamic_patch, conv_style)
    result = {"question": question, "images": paths, "answer": predictor([(images, question)], max_new_tokens)[0]}
    print(dumps(result, ensure_ascii=False) if json else result["answer"])
    return result


if __name__ == "__main__":
    run_script(main)
