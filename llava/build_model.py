"""A LLaVA from a language model and an image backbone, whose image tokens are words.

    python llava/build_model.py captions.json models/mine --language_model HuggingFaceTB/SmolLM2-135M-Instruct
        [--image_tower tf_efficientnet_lite0 --image_weights FILE --image_size 128 --steps 400]

captions.json: images with texts, as llava/make_scoring_data.py reads them

pixels -> timm backbone -> linear, softmax -> the tokens of the most probable words (llava/timm_tower.py)
    -> table of the language model's embeddings -> image tokens
A word is a token of the texts; or a character of several, as Chinese ones are to many tokenizers.

Backbone and probabilities are trained here, without the language model, at the cost of a classifier
(llava/word_alignment.py). Most views are redrawn in invented styles (common/images/transforms.py), so that contents are
recognised in styles that the images lack. Then llava/train.py teaches the language model to answer from such words:
"Data for scoring" in docs/llava.md has the steps.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
import regex
import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.cache import ImageCache
from common.images.transforms import Augmentation, SampleKey
from common.metrics.text import UNSPACED
from common.models.backbone import create_backbone
from common.models.checkpoint_file import first_line
from common.models.pretrained import LOAD_ERRORS, load_pretrained
from common.models.tokenizer import load_tokenizer
from common.training.device import choose_device
from common.training.skip_log import SkipLog, report_skipped
from llava.make_scoring_data import read_images
from llava.model import CHAT_TEMPLATE, IMAGE_TOKEN, build_llava
from llava.timm_tower import TimmTowerConfig
from llava.word_alignment import align_with_words, word_targets

CHATML_TEMPLATE = (  # of SmolLM2, Qwen and InternVL
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MIN_AREA = 0.6  # of an image in a view
WORDS = 36  # of an image, about
RARITY = 0.5  # of word_targets; as measured, though 0 may do as well (docs/log.md)
REDRAWN, GREY = 0.8, 0.25  # shares of the views
UNSPACED_TEXT = regex.compile(rf"\s*[{UNSPACED}]")
REPLACEMENT = "\ufffd"  # what a part of a character decodes to
Word = tuple[int, ...]  # its tokens


@tool
def main(
    input: Path,  # images with their texts
    output: Path,  # the folder to write
    *,
    language_model: str,  # folder or name of a language model
    image_tower: str = "tf_efficientnet_lite0",  # any timm model
    image_weights: str = "",  # its file; empty: timm's own, downloaded once
    image_size: PositiveInt = 128,  # pixels of the square input
    language: Sequence[str] = ("en",),  # of the words
    steps: PositiveInt = 400,
    batch_size: PositiveInt = 32,
    learning_rate: PositiveFloat = 1e-3,
    device: str = "auto",
    cache_dir: Path = Path(".cache/images"),
    allowed_share: ClosedUnitInterval = 0.05,  # of unusable records
    seed: int = 0,
) -> dict:
    skip_log = SkipLog(limit=allowed_share)
    images = ImageCache(image_size, cache_dir, data=input)
    texts = read_texts(input, language, images, skip_log)
    report_skipped(skip_log.skipped, listed="")
    torch.manual_seed(seed)
    model, tokenizer = load_language_model(language_model)
    words = [words_of(some, tokenizer) for some in texts.values()]
    vocabulary = sorted(set().union(*words))
    targets = word_targets(words, vocabulary, RARITY)
    backbone = create_backbone(image_tower, image_weights or True, image_size)
    llava, processor = assemble(model, tokenizer, backbone, image_size, vocabulary)
    tower = llava.model.vision_tower.to(choose_device(device))
    torch.nn.init.normal_(tower.words.weight, std=0.01)
    tower.words.bias.data = targets.mean(0).log().to(tower.device)
    draw_view = Views(images, list(texts), image_size, seed)

    def patch_logits(rows: torch.Tensor) -> torch.Tensor:
        views = [draw_view(row) for row in rows.tolist()]
        pixels = processor.image_processor(views, return_tensors="pt")["pixel_values"].to(tower.device)
        return tower.words(tower.features(pixels))

    first, last = align_with_words(patch_logits, targets, list(tower.parameters()), steps, batch_size, learning_rate)
    llava.to("cpu").save_pretrained(output)
    processor.save_pretrained(output)
    losses = f"loss {first:.2f} at the beginning, {last:.2f} at the end"
    print(f"{output}: {len(texts)} images, {len(vocabulary)} words, {losses}; {len(skip_log.skipped)} records skipped")
    return {"output": str(output), "images": len(texts), "words": len(vocabulary), "losses": [first, last]}


def read_texts(path: Path, languages: Sequence[str], images: ImageCache, skip_log: SkipLog) -> dict[Path, list[str]]:
    """Texts of each image that can be read, in all languages."""
    texts: dict[Path, list[str]] = defaultdict(list)
    for name in languages:
        for image in read_images(path, name, name == languages[0], (), path.parent, skip_log):
            texts[path.parent / image.path] += image.texts
    for broken, reason in images.check(list(texts), len(texts)).items():
        skip_log.add(broken, reason, len(texts))
        del texts[Path(broken)]
    return texts


class Views:
    """views(number of an image) -> a random view of it, (S, S, 3) uint8, another one each time."""

    def __init__(self, images: ImageCache, paths: Sequence[Path], size: int, seed: int):
        self.images, self.paths, self.size = images, paths, size
        self.augment, self.random = Augmentation(MIN_AREA, seed=seed), np.random.default_rng(seed)

    def __call__(self, number: int) -> np.ndarray:
        style = int(self.random.integers(1, 2**31)) if self.random.random() < REDRAWN else 0
        view = SampleKey(int(self.random.integers(2**31)), number, style, bool(self.random.random() < GREY))
        return self.augment(self.images[self.paths[number]], self.size, view).copy()  # writable, as torch wants it


def load_language_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """With a token for images."""
    label, remedy = f"--language_model {name}", "expected the name or the folder of a language model of transformers"
    model = load_pretrained(AutoModelForCausalLM, name, label=label, remedy=remedy, dtype=torch.float32)
    try:
        tokenizer = load_tokenizer(name)
    except LOAD_ERRORS as error:
        raise ValueError(f"{label}: its tokenizer cannot be loaded ({first_line(error)})") from None
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.image_token = IMAGE_TOKEN
    model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size), mean_resizing=False)
    return model, tokenizer


def words_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> set[Word]:
    """As behind a space, where a script has spaces: a word has other tokens at the beginning of a text. Parts of a
    character stay together: in any order they would be nothing."""
    words: set[Word] = set()
    for text in texts:
        word: Word = ()
        spaced = text if UNSPACED_TEXT.match(text) else f" {text}"
        for token in tokenizer(spaced, add_special_tokens=False)["input_ids"]:
            word += (token,)
            if not tokenizer.decode(word).endswith(REPLACEMENT):
                words.add(word)
                word = ()
    return words


def assemble(
    language: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    backbone: Any,
    image_size: int,
    vocabulary: Sequence[Word],
) -> tuple[Any, Any]:
    """-> LLaVA, processor. The projector is the table of the embeddings of the vocabulary's tokens."""
    tokens = sorted(set(chain.from_iterable(vocabulary)))
    columns = {token: column for column, token in enumerate(tokens)}
    side = round(math.sqrt(WORDS * np.mean([len(word) for word in vocabulary])))
    vision = TimmTowerConfig(
        architecture=backbone.pretrained_cfg["architecture"],
        image_size=image_size,
        patch_size=image_size // side,
        hidden_size=len(tokens),
        words=[[columns[token] for token in word] for word in vocabulary],
    )
    template = CHATML_TEMPLATE if "<|im_start|>" in tokenizer.get_vocab() else CHAT_TEMPLATE
    llava, processor = build_llava(tokenizer, vision, language.config, template, projector_act="linear")
    llava.model.language_model.load_state_dict(language.get_decoder().state_dict())
    llava.get_output_embeddings().load_state_dict(language.get_output_embeddings().state_dict())
    llava.tie_weights()
    llava.model.vision_tower.backbone.load_state_dict(backbone.state_dict())
    projector = llava.model.multi_modal_projector
    embeddings = llava.get_input_embeddings().weight.detach()[tokens]  # (T, D)
    for layer, weight in ((projector.linear_1, embeddings.T), (projector.linear_2, torch.eye(embeddings.shape[1]))):
        layer.weight.data = weight.contiguous()
        torch.nn.init.zeros_(layer.bias)
    return llava, processor


if __name__ == "__main__":
    run_script(main)
