"""Fit of the names of styles: makes any weights of the style encoder rank names (style_names.py).

    python fit_names.py --weights checkpoints/best.pth --text_encoder openai/clip-vit-large-patch14 --data_dir data

drawings in invented styles, described in words (common/samples/invented_words.py) --\\
images of a data folder with the texts of their styles ------------------------------> ridge regression of the texts'
                                                                     vectors on channel statistics of feature maps

A closed form, as in Romera-Paredes and Torr 2015. train.py does it where the data has targets of prepare_targets.py.
"""

from pathlib import Path
from typing import Any

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from sklearn.metrics import roc_auc_score

from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.samples.invented import invented_style, read_bank, style_seed
from common.samples.invented_words import describe
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import find_samples
from model import VisionStyleEncoder
from prepare_targets import group_by_text
from sample_table import SampleTable
from style_encoder import BATCH_SIZE, encode_images, load_encoder, save_encoder
from style_names import encode_names, encode_texts, name_similarity, read_out, statistics_of, summary, words_of
from text_encoder import TextEncoderRecord

DRAWN_STYLES, DRAWINGS = 1024, 2  # of each; more styles help, more drawings of one hardly do
OWN_IMAGES = 2000  # of a data folder at most, evenly spread
OWN_SHARE = 0.25  # own styles count together at least this share of the drawn ones
RIDGE = 1e-3  # relative to the mean squared length of the statistics
BACKGROUND = 256  # drawings, and own images, that say how high the cosines of a name are anyway
FOLDS = 5  # one drawn style in so many is first kept for a test


@tool
def main(
    *,
    weights: Path,  # a .pth written by train.py; the names are written into it
    data_dir: Path | None = None,  # described styles, as prepare_targets.py reads them; default: drawings alone
    text_encoder: str = "hash",  # Hugging Face name, local folder, or 'hash'
    prompt: str = "{style} style",  # text of a name, and of what a style is described with
    max_length: PositiveInt = 77,  # tokens of a text
    drawn_styles: NonNegativeInt = DRAWN_STYLES,
    cache_dir: Path = Path(".cache/images"),  # of the drawings
    device: str = "auto",
) -> dict[str, Any]:
    # int(): a checkpoint holds plain types, and the parser's are its own
    record = TextEncoderRecord(text_encoder=text_encoder, max_length=int(max_length), prompt=prompt)
    samples = find_samples(data_dir) if data_dir else None
    texts = add_names(weights, record, samples, int(drawn_styles), choose_device(device), cache_dir)
    if known := sorted(texts.get("visible", {}).items(), key=lambda item: -item[1]):
        print("words of the drawings, and their AUC: " + ", ".join(f"{word} {auc:.2f}" for word, auc in known))
    return texts


def add_names(
    weights: Path,
    record: TextEncoderRecord,
    samples: SampleTable | None,
    drawn_styles: int,
    device: torch.device,
    cache_dir: str | Path | None,
) -> dict[str, Any]:
    """Fit names for the encoder of a file, write them into it, and print what they are worth -> the names."""
    encoder, content = load_encoder(weights, device)
    texts = fit_names(encoder, record, samples, drawn_styles, cache_dir)
    for key in ("format", "kind", "build", "preprocessing"):  # of the encoder, which save_encoder adds
        del content[key]
    save_encoder(weights, encoder, **{**content, "texts": texts})
    print(f"names     {summary(texts)}")
    return texts


def fit_names(
    encoder: VisionStyleEncoder,
    record: TextEncoderRecord,
    samples: SampleTable | None,
    drawn_styles: int,
    cache_dir: str | Path | None,
) -> dict[str, Any]:
    """What a checkpoint needs to take names: the record, the read-out, the words of the texts that it is fitted on, and
    how well one names a part of the drawn styles that is fitted on the others. samples: described, besides drawings."""
    words = [describe(invented_style(style_seed(0, number))) for number in range(drawn_styles)]
    drawn = [text for text in words for _ in range(DRAWINGS)]
    rows = [read_drawings(encoder, drawn_styles, cache_dir)] if drawn_styles else []
    own: list[str] = []
    if samples:
        chosen = samples.select(range(0, len(samples), -(-len(samples) // OWN_IMAGES)))
        samples_of, skipped = group_by_text(list(chosen), "{style}")
        for text, members in samples_of.items():
            paths = [sample.image for sample in members]
            rows.append(encode_images(paths, encoder, statistics_of(encoder), skipped))
            own += [text] * len(rows[-1])
        report_skipped(skipped, listed="")
    texts = [record["prompt"].replace("{style}", text) for text in drawn + own]  # as names are, or they would differ
    if len(set(texts)) < 2:
        raise ValueError("--names needs two or more described styles; give --drawn_styles, or texts in the data folder")
    images, pooled = torch.cat([part for part in rows if len(part)]), encode_texts(texts, record, encoder.device)
    share = max(len(set(own)), OWN_SHARE * drawn_styles) * DRAWINGS  # of all own images; of a drawing: 1
    weight = torch.tensor([1.0] * len(drawn) + [share / max(len(own), 1)] * len(own))
    names: dict[str, Any] = {**record, "styles": len(set(own)), "drawn_styles": drawn_styles}
    names["words"] = sorted(words_of(" ".join(texts)))
    kept = torch.arange(len(texts)) < drawn_styles // FOLDS * DRAWINGS
    if kept.sum() > DRAWINGS:
        rest = len(drawn) - int(kept.sum())
        part = {**record, **fit_readout(images[~kept], pooled[~kept], weight[~kept], rest)}
        names |= measure_names(images[kept], drawn[: int(kept.sum())], part, encoder.device)
    return {**names, **fit_readout(images, pooled, weight, len(drawn))}


@torch.inference_mode()
def read_drawings(encoder: VisionStyleEncoder, styles: int, cache_dir: str | Path | None) -> torch.Tensor:
    """-> statistics (styles * DRAWINGS, W)"""
    bank = read_bank(styles, DRAWINGS, encoder.tower.image_size, cache_dir)
    read, parts = statistics_of(encoder), []
    for start in progress_bar(range(0, styles, BATCH_SIZE), "described drawings"):
        pixels = torch.tensor(bank[start : start + BATCH_SIZE]).flatten(0, 1)  # (B, S, S, 3); a copy of a read-only map
        parts.append(read(encoder(pixels.permute(0, 3, 1, 2).to(encoder.device))).cpu())
    return torch.cat(parts)


def fit_readout(
    images: torch.Tensor, pooled: torch.Tensor, weight: torch.Tensor, drawn: int
) -> dict[str, torch.Tensor]:
    """As fit_regression, and `background` (M, P): read-outs of drawings, the first `drawn` images, and of own ones. A
    name is judged by how much nearer it is to an image than to these, or names of the fit would always win."""
    parts = fit_regression(images, pooled, weight)
    chosen = [rows[:: -(-len(rows) // BACKGROUND)] for rows in (images[:drawn], images[drawn:]) if len(rows)]
    return {**parts, "background": read_out(torch.cat(chosen), parts)}


def fit_regression(images: torch.Tensor, pooled: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """images (N, W), pooled (N, P), weight (N,) -> mean (W,) and readout (W, P) of images, text_mean (P,) and whitening
    (P, P) of texts. Whitened, a rare word counts as much as one that half of the texts hold."""
    images, pooled, weight = images.double(), pooled.double(), (weight.double() / weight.sum())[:, None]
    text_mean, mean = (weight * pooled).sum(0), (weight * images).sum(0)
    texts = pooled - text_mean
    strengths, directions = torch.linalg.eigh(texts.T @ (weight * texts))
    whitening = directions * (strengths + strengths.mean()).rsqrt() @ directions.T  # no direction more than P-fold
    deviation = (weight * (images - mean) ** 2).sum(0).sqrt()
    scale = 1 / (deviation + 1e-3 * deviation.max()).clamp(min=1e-12) / images.shape[1] ** 0.5
    rows, targets = weight.sqrt() * (images - mean) * scale, weight.sqrt() * (texts @ whitening)
    kernel = rows @ rows.T  # the dual form: wide backbones have more channels than there are images
    readout = scale[:, None] * (rows.T @ torch.linalg.solve(kernel + RIDGE * torch.eye(len(rows)), targets))
    parts = {"mean": mean, "readout": readout, "text_mean": text_mean, "whitening": whitening}
    return {name: tensor.float() for name, tensor in parts.items()}


def measure_names(
    images: torch.Tensor, words: list[str], texts: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """Statistics (N, W) of drawings that the read-out has not seen, and their words -> `choices`, number of different
    ones; `first`, share of drawings whose own are the nearest; `visible`, {word: AUC of its similarity}."""
    choices = list(dict.fromkeys(words))
    own = torch.tensor([choices.index(text) for text in words])
    first = name_similarity(images, encode_names(choices, texts, device), texts).argmax(1) == own
    held = [set(text.split(", ")) for text in words]
    single = sorted(set().union(*held))
    cosines = name_similarity(images, encode_names(single, texts, device), texts)
    visible = {}
    for word, scores in zip(single, cosines.T.tolist()):
        if 0 < sum(word in texts for texts in held) < len(held):
            visible[word] = float(roc_auc_score([word in texts for texts in held], scores))
    return {"choices": len(choices), "first": float(first.float().mean()), "visible": visible}


if __name__ == "__main__":
    run_script(main)
