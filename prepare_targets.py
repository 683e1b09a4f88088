"""Prepare the style encoder's targets: encode a text about each image's style.

    python prepare_targets.py --data_dir data --text_encoder openai/clip-vit-large-patch14
    python prepare_targets.py --data_dir data --text_encoder ./my_t5_folder --prompt "a picture in {style} style"
    python prepare_targets.py --data_dir data            without a network: hashed word vectors

The text of an image: <name>.txt in its folder, else style.txt there or above, else the prompt with the style's name.
text -> tokenizer, encoder -> <name>_embed.pt (L, D), <name>_pooled.pt (P,), <name>_mask.pt (L,)

Existing files are kept, so an interrupted run continues where it stopped.
"""

from itertools import product
from pathlib import Path
from typing import Literal

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import PositiveInt

from common.cli.errors import one_line, run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.text.files import read_text, write_atomically, write_json
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import find_samples
from sample_table import Sample
from targets import TARGETS
from text_encoder import HASH, RECORD, TextEncoder, TextEncoderRecord, open_text_encoder, read_record


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
    if text_encoder == HASH:
        max_length = min(max_length, 16)  # hashed words have no context; longer sequences only take space
    encode = open_text_encoder(text_encoder, max_length, choose_device(device))
    record = TextEncoderRecord(text_encoder=text_encoder, max_length=max_length, prompt=prompt)
    path = data_dir / RECORD
    existing = (None if overwrite else read_record(data_dir)) or record
    if (existing["text_encoder"], existing["max_length"]) != (text_encoder, max_length):
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


def prepare_targets(
    samples_of: dict[str, list[Sample]],
    encode: TextEncoder,
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
