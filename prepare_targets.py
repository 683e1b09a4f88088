"""Prepare the style encoder's targets: encode a text about each image's style.

    python prepare_targets.py --data_dir data --text_encoder openai/clip-vit-large-patch14
    python prepare_targets.py --data_dir data --text_encoder ./my_t5_folder --prompt "a picture in {style} style"
    python prepare_targets.py --data_dir data            without a network: hashed word vectors

The text of an image: <name>.txt in its folder, else style.txt there or above, else the prompt with the style's name.
text -> tokenizer, encoder -> <name>_embed.pt (L, D), <name>_pooled.pt (P,), <name>_mask.pt (L,)

Existing files are kept, so an interrupted run continues where it stopped.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, Literal

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import PositiveInt
from typing_extensions import TypedDict

from common.cli.errors import one_line, run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.models.checkpoint_file import first_line
from common.samples.hash_text_encoder import hash_text
from common.text.files import read_text, write_atomically, write_json
from common.text.schema import read_checked
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import Sample, find_samples
from targets import TARGETS

RECORD = "targets.json"  # in data_dir: the encoder of the files, so that two are never mixed
Targets = dict[str, torch.Tensor]


class Record(TypedDict):
    text_encoder: str
    max_length: int


@tool
def main(
    *,
    data_dir: Path = Path("./data"),  # folder of <style>/<name>_img.*, or of ordinary image folders
    text_encoder: str = "hash",  # Hugging Face name, local folder, or 'hash'
    prompt: str = "{style} style",  # text of a style that has none; {style} is its folder
    max_length: PositiveInt = 77,  # tokens; longer texts are truncated, shorter ones padded
    batch_size: PositiveInt = 64,  # texts at a time
    save_dtype: Literal["float16", "float32"] = "float16",  # of the numbers in the files
    device: str = "auto",
    overwrite: bool = False,  # replace existing files
) -> int:
    samples = find_samples(data_dir)
    report_skipped(samples.skipped, listed="")
    if text_encoder == "hash":
        max_length = min(max_length, 16)  # hashed words have no context; longer sequences only take space

        def encode(texts: list[str]) -> list[Targets]:
            return [hash_text(text, length=max_length) for text in texts]
    else:
        encode = HuggingFaceTextEncoder(text_encoder, choose_device(device), max_length)
    record, path = Record(text_encoder=text_encoder, max_length=max_length), data_dir / RECORD
    existing = read_checked(path, Record) if path.is_file() and not overwrite else record
    if existing != record:
        raise ValueError(
            f"{path}: the targets there are of {existing['text_encoder']} (length {existing['max_length']}), not "
            f"{text_encoder} (length {max_length}); --overwrite replaces all of them"
        )
    write_json(path, record)
    unfinished = [sample for sample in samples if overwrite or len(sample.targets) < len(TARGETS)]
    samples_of, skipped = group_by_text(unfinished, prompt)
    report_skipped(skipped, listed="")
    if unfinished and not samples_of:
        raise ValueError(f"{data_dir}: no image with a text; {next(iter(skipped.values()))}")
    written = prepare_targets(samples_of, encode, overwrite, batch_size, getattr(torch, save_dtype))
    print(f"{written} images got targets, {len(samples) - len(unfinished)} already had them")
    return written


def text_of(sample: Sample, prompt: str) -> str:
    """The text that describes this image's style."""
    folders = sample.image.parents[: sample.name.count("/") + 1]  # up to the style folder
    for path in (sample.beside(".txt"), *(folder / "style.txt" for folder in folders)):
        if path.is_file():
            text = read_text(path).strip()
            if not text or "\0" in text:
                raise ValueError(f"{path}: no text in it; write a description of the style, or remove the file")
            return text
    return prompt.replace("{style}", sample.style.replace("_", " "))


def group_by_text(samples: list[Sample], prompt: str) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """-> samples of each text, {image without a text that can be read: reason}."""
    samples_of: dict[str, list[Sample]] = {}
    skipped: dict[str, str] = {}
    for sample in samples:
        try:
            samples_of.setdefault(text_of(sample, prompt), []).append(sample)
        except (ValueError, OSError) as error:
            skipped[str(sample.image)] = one_line(error)
    return samples_of, skipped


class HuggingFaceTextEncoder:
    """texts -> [{embed (L, D), pooled (P,), mask (L,)}] by any text encoder of transformers, by name or folder.

    pooled is the projected vector of a CLIP text tower, the mean of the tokens of other models.
    """

    def __init__(self, name: str, device: torch.device, max_length: int):
        from transformers import (  # slow to import, and --text_encoder hash does not need it
            MODEL_FOR_TEXT_ENCODING_MAPPING,
            AutoConfig,
            AutoModel,
            AutoModelForTextEncoding,
            CLIPTextModelWithProjection,
        )

        from common.models.pretrained import LOAD_ERRORS, load_pretrained
        from common.models.tokenizer import load_tokenizer

        label, remedy = f"--text_encoder {name}", "give a Hugging Face name, a local folder, or 'hash'"
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            self.tokenizer = load_tokenizer(name)
            # An encoder-decoder's own class would ask for decoder input.
            kind: Any = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
            if config.model_type in ("clip", "clip_text_model"):
                kind = CLIPTextModelWithProjection
        except LOAD_ERRORS as error:
            raise ValueError(f"{label}: cannot be loaded ({first_line(error)}); {remedy}") from None
        # Decoders, image towers and heads are in such files, too; poolers are not used, and may be missing.
        model = load_pretrained(
            kind, name, label=label, remedy=remedy, missing=[r"pooler\."], unexpected=[""], dtype=torch.float32
        )
        self.model = model.eval().to(device)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = device
        self.max_length = min(max_length, self.tokenizer.model_max_length)

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> list[Targets]:
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        ).to(self.device)
        output = self.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        embed, mask = output.last_hidden_state, tokens["attention_mask"]  # (B, L, D), (B, L)
        pooled = getattr(output, "text_embeds", None)
        if pooled is None:
            pooled = (embed * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return [{"embed": e, "pooled": p, "mask": m} for e, p, m in zip(embed.cpu(), pooled.cpu(), mask.cpu())]


def prepare_targets(
    samples_of: dict[str, list[Sample]],
    encode: Callable[[list[str]], list[Targets]],
    overwrite: bool = False,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float16,
) -> int:
    """Write the missing targets of the samples of each text -> the number of samples. Each text is encoded once."""
    texts = list(samples_of)
    for start in progress_bar(range(0, len(texts), batch_size), "encoding texts"):
        batch = texts[start : start + batch_size]
        for text, targets in zip(batch, encode(batch)):
            for sample, kind in product(samples_of[text], TARGETS):
                if kind in sample.targets and not overwrite:
                    continue
                tensor = targets[kind] if kind == "mask" else targets[kind].to(dtype)
                # Many small files: no wait for the disk at each; a lost one is written again by the next run.
                with write_atomically(sample.beside(f"_{kind}.pt"), durable=False) as file:
                    torch.save(tensor.clone(), file)
    return sum(map(len, samples_of.values()))


if __name__ == "__main__":
    run_script(main)
