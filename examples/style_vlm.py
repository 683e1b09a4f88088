"""A vision-language model that knows styles: style encoder, projectors, a small language model.

    python train.py --demo
    python examples/style_vlm.py --data_dir data/sample_styles --style_encoder checkpoints/demo/best.pth

image -> vision tower -> patches (B, N, V) -> projector --\\
      \\-> style encoder -> style (B, S) -> projector -----> in place of <image> in the text -> language model -> answer

Image networks are frozen, and answers are judged on images that the style encoder's training held out. The language
model is a small one from scratch, or any of transformers, then frozen too.
"""

import sys
from pathlib import Path
from random import Random

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.models.backbone import VisionTower
from common.models.tokenizer import load_tokenizer, train_tokenizer
from common.text.padding import pad
from dataset import find_samples, split_samples
from multimodal_utils import build_projector, merge_image_tokens, project_pooled_embed, project_sequence_embed
from style_encoder import load_encoder, read_image

IMAGE, BATCH = "<image>", 32
SMALL = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 6}


class StyleVLM(nn.Module):
    def __init__(self, language_model: nn.Module, patch_width: int, style_width: int, image_id: int):
        super().__init__()
        self.language_model, self.image_id = language_model, image_id
        width = language_model.get_input_embeddings().embedding_dim
        self.projector = build_projector("mlp2x_gelu", patch_width, width)
        self.style_projector = build_projector("mlp2x_gelu", style_width, width)

    def merge(self, patches, style, ids, mask, labels=None, padding_side="right") -> dict:
        """patches (B, N, V), style (B, S), ids, mask, labels (B, T) -> arguments of the language model."""
        token = project_pooled_embed(style, self.style_projector).unsqueeze(1)
        image = torch.cat([token, project_sequence_embed(patches, self.projector)], 1)
        embeds = self.language_model.get_input_embeddings()(ids)
        merged = merge_image_tokens(embeds, ids, image, self.image_id, mask, labels, padding_side)
        return {"inputs_embeds": merged.embeds, "attention_mask": merged.attention_mask, "labels": merged.labels}

    def answer(self, patches, style, ids, mask, tokenizer) -> list[str]:
        arguments = self.eval().merge(patches, style, ids, mask, padding_side="left")
        written = self.language_model.generate(**arguments, max_new_tokens=16, do_sample=False)
        return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def make_turns(samples: list, styles: list[str], seed: int) -> list[tuple[int, str, str, str]]:
    """-> number of the image, kind of question, question, answer."""
    random, turns = Random(seed), []
    for number, sample in enumerate(samples):
        is_true = random.random() < 0.5
        style = sample.style if is_true else random.choice([name for name in styles if name != sample.style])
        turns.append((number, "which style", "In which style is this drawn?", sample.style))
        turns.append((number, "yes or no", f"Is this in the style {style}?", "yes" if is_true else "no"))
    return turns


@torch.inference_mode()
def encode_images(samples: list, encoder: nn.Module, tower: nn.Module, style: bool) -> list[torch.Tensor]:
    """-> patches (N, P, V), style (N, S) of every image, once. style false: zeros in its place."""
    rows = []
    for start in range(0, len(samples), BATCH):
        images = torch.stack([read_image(sample.image, encoder) for sample in samples[start : start + BATCH]])
        rows.append((tower(images).patches, encoder(images).style * encoder.style_head.width**0.5 * style))
    return [torch.cat(part) for part in zip(*rows)]


def make_batch(features: list[torch.Tensor], turns: list[tuple], tokenizer, with_answers: bool) -> list[torch.Tensor]:
    """-> patches, style, ids, mask (B, T), with answers also labels (B, T): -100 but for the answers."""
    _, _, questions, answers = zip(*turns)
    prompts = tokenizer([f"{IMAGE} {question} " for question in questions], add_special_tokens=False).input_ids
    replies = tokenizer([f"{answer}{tokenizer.eos_token}" for answer in answers], add_special_tokens=False).input_ids
    ids = [prompt + reply * with_answers for prompt, reply in zip(prompts, replies)]
    labels = [[-100] * len(prompt) + reply for prompt, reply in zip(prompts, replies)]
    images = [values[[turn[0] for turn in turns]] for values in features]
    return [*images, *pad(ids, tokenizer.pad_token_id), *([pad(labels, -100).values] if with_answers else [])]


@tool
def main(
    *,
    data_dir: Path,  # <style>/<name>_img.png, as train.py reads it
    style_encoder: str,  # best.pth of train.py
    test_dir: Path | None = None,  # images of the same styles to answer about; default: those held out of training
    tower: str = "",  # timm model that gives the patches, NAME or NAME:FILE; default: the style encoder's own
    language_model: str = "small",  # a name or folder of transformers; small: from scratch
    no_style: bool = False,  # zeros in place of the style vector
    steps: PositiveInt = 600,
    seed: NonNegativeInt = 0,
) -> dict[str, float]:
    torch.manual_seed(seed)
    encoder, content = load_encoder(style_encoder, torch.device("cpu"))
    samples = find_samples(data_dir)
    chosen = [content["settings"][key] for key in ("val_split", "val_styles", "seed")]
    split = (samples, find_samples(test_dir)) if test_dir else split_samples(samples, *chosen)
    name, _, file = tower.partition(":")
    vision = VisionTower(name, file or True, encoder.tower.image_size) if name else encoder.tower
    features, held_out = (encode_images(samples, encoder, vision.eval(), not no_style) for samples in split)
    turns, questions = (make_turns(samples, sorted({sample.style for sample in split[0]}), seed) for samples in split)
    if language_model == "small":
        tokenizer = train_tokenizer([" ".join(turn[2:]) for turn in turns], 1000, "<pad>", "</s>", None, [IMAGE])
        ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        network = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SMALL, **ends))
    else:
        tokenizer = load_tokenizer(language_model, additional_special_tokens=[IMAGE])
        network = AutoModelForCausalLM.from_pretrained(language_model, trust_remote_code=False).requires_grad_(False)
        network.resize_token_embeddings(len(tokenizer))
    model = StyleVLM(network, *(values.shape[-1] for values in features), tokenizer.convert_tokens_to_ids(IMAGE))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    for _ in progress_bar(range(steps), "training"):
        batch = [turns[int(index)] for index in torch.randint(len(turns), (BATCH,))]
        loss = network(**model.merge(*make_batch(features, batch, tokenizer, with_answers=True))).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    right: dict[str, list[bool]] = {}
    for batch in (questions[start : start + BATCH] for start in range(0, len(questions), BATCH)):
        answers = model.answer(*make_batch(held_out, batch, tokenizer, with_answers=False), tokenizer)
        for (_, kind, question, expected), answer in zip(batch, answers):
            right.setdefault(kind, []).append(answer == expected)
            if len(right[kind]) <= 3:
                print(f"{question} {answer}" + f"   (right: {expected})" * (answer != expected))
    scores = {kind: sum(values) / len(values) for kind, values in right.items()}
    parts = ", ".join(f"{kind} {score:.1%}" for kind, score in scores.items())
    print(f"right answers on {len(split[1])} held-out images: {parts}")
    return scores


if __name__ == "__main__":
    run_script(main)
