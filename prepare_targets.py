"""Text targets for the style encoder: what a text encoder says of each image's style.

    python prepare_targets.py --data_dir data --text_encoder openai/clip-vit-large-patch14
    python prepare_targets.py --data_dir data --text_encoder ./my_t5_folder --prompt "a picture in {style} style"
    python prepare_targets.py --data_dir data            without a network: hashed word vectors

The text of an image: <name>.txt beside it, else style.txt in its folder, else the prompt with the folder's name.
text -> tokenizer, encoder -> <name>_embed.pt (L, D), <name>_pooled.pt (P,), <name>_mask.pt (L,)

Files that are there already are left alone, so an interrupted run goes on where it stopped.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from common.cli.errors import run_script
from common.samples.hash_text_encoder import hash_text
from common.text.files import write_atomically, write_json
from common.training.device import choose_device
from dataset import TARGETS, Sample, find_samples

RECORD = "targets.json"  # in data_dir: which encoder made the files, so that two are never mixed
Targets = dict[str, torch.Tensor]


def text_of(sample: Sample, prompt: str) -> str:
    """The words that describe this image's style."""
    folder = sample.image.parent
    for path in (folder / f"{sample.name}.txt", folder / "style.txt"):
        if path.is_file():
            text = path.read_text(encoding="utf-8").strip()
            if not text:
                raise ValueError(f"{path}: empty; write the style's words in it, or remove it")
            return text
    return prompt.format(style=sample.style.replace("_", " "))


class HuggingFaceTextEncoder:
    """texts -> [{embed (L, D), pooled (P,), mask (L,)}] by any encoder that transformers knows, by name or folder.

    CLIP text towers give their projected vector as pooled; other models the mean of their tokens.
    """

    def __init__(self, name: str, device: torch.device, max_length: int):
        from transformers import (  # not at the top: --text_encoder hash does without
            MODEL_FOR_TEXT_ENCODING_MAPPING,
            AutoConfig,
            AutoModel,
            AutoModelForTextEncoding,
            AutoTokenizer,
            CLIPTextModelWithProjection,
        )

        try:
            config = AutoConfig.from_pretrained(name)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            if config.model_type in ("clip", "clip_text_model"):
                kind = CLIPTextModelWithProjection
            else:
                # An encoder-decoder's own class would ask for decoder input.
                kind = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
            self.model = kind.from_pretrained(name, dtype=torch.float32).eval().to(device)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"--text_encoder {name}: cannot be loaded ({str(error).strip().splitlines()[0]}); "
                "give a Hugging Face name, a local folder, or 'hash'"
            ) from None
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
    samples: list[Sample],
    encode: Callable[[list[str]], list[Targets]],
    prompt: str,
    overwrite: bool = False,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float16,
) -> int:
    """Write the missing targets -> how many images got some. A text is encoded once, however many share it."""
    todo: dict[str, list[Sample]] = {}
    for sample in samples:
        if overwrite or len(sample.targets) < len(TARGETS):
            todo.setdefault(text_of(sample, prompt), []).append(sample)
    texts = list(todo)
    with tqdm(total=sum(map(len, todo.values())), desc="encoding texts", unit="img", dynamic_ncols=True) as bar:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            for text, targets in zip(batch, encode(batch)):
                for sample in todo[text]:
                    _write(sample, targets, overwrite, dtype)
                    bar.update()
    return sum(map(len, todo.values()))


def _write(sample: Sample, targets: Targets, overwrite: bool, dtype: torch.dtype) -> None:
    for kind in TARGETS:
        if kind in sample.targets and not overwrite:
            continue
        tensor = targets[kind] if kind == "mask" else targets[kind].to(dtype)
        # Not waiting for the disk at each of many small files; a lost one is simply made again.
        with write_atomically(sample.image.with_name(f"{sample.name}_{kind}.pt"), durable=False) as file:
            torch.save(tensor.clone(), file)


def _check_record(data_dir: Path, record: dict, overwrite: bool) -> None:
    path = data_dir / RECORD
    if path.is_file() and not overwrite:
        written = json.loads(path.read_text(encoding="utf-8"))
        if written != record:
            raise ValueError(
                f"{path}: the targets there are of {written['text_encoder']} (length {written['max_length']}), not "
                f"{record['text_encoder']} (length {record['max_length']}); --overwrite makes all of them anew"
            )
    write_json(path, record)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="prepare_targets.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", default="./data", help="folder of <style>/<name>_img.*")
    parser.add_argument("--text_encoder", default="hash", help="Hugging Face name, local folder, or 'hash'")
    parser.add_argument(
        "--prompt", default="{style} style", help="text of a style that has none; {style} is its folder"
    )
    parser.add_argument("--max_length", type=int, default=77, help="tokens; longer texts are cut, shorter ones padded")
    parser.add_argument("--batch_size", type=int, default=64, help="texts at a time")
    parser.add_argument("--save_dtype", choices=("float16", "float32"), default="float16", help="numbers in the files")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--overwrite", action="store_true", help="make files anew that are there already")
    args = parser.parse_args(argv)

    samples = find_samples(args.data_dir)
    if args.text_encoder == "hash":
        args.max_length = min(args.max_length, 16)  # hashed words know no context; longer ones only take room

        def encode(texts: list[str]) -> list[Targets]:
            return [hash_text(text, length=args.max_length) for text in texts]
    else:
        encode = HuggingFaceTextEncoder(args.text_encoder, choose_device(args.device), args.max_length)
    _check_record(
        Path(args.data_dir), {"text_encoder": args.text_encoder, "max_length": args.max_length}, args.overwrite
    )
    dtype = getattr(torch, args.save_dtype)
    written = prepare_targets(samples, encode, args.prompt, args.overwrite, args.batch_size, dtype)
    print(f"{written} images got targets, {len(samples) - written} had them already")
    return written


if __name__ == "__main__":
    run_script(main)
