"""Inspect all outputs of a style encoder for one image.

    python inspect_image.py a.png --weights checkpoints/best.pth [--save_maps maps.png] [--json]

Prints shape, dtype, device, minimum, mean, maximum and norm of each output. The mask is the model's own prediction; an
output that the model was not trained to give is reported as missing.
"""

from json import dumps
from pathlib import Path
from typing import Any

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from common.cli.errors import printable, run_script
from common.cli.tool_parser import tool
from common.images.io import image_size
from common.training.device import choose_device
from common.training.plots import readable, save_figure
from model import StyleOutput, VisionStyleEncoder
from style_encoder import load_encoder, read_image

COLUMNS = ("min", "mean", "max", "norm")


@tool
def main(
    image: Path,
    *,
    weights: str,  # a .pth written by train.py
    save_maps: Path | None = None,  # plot patch features and the style head's attention to this PNG
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    torch_device = choose_device(device)
    encoder, content = load_encoder(weights, torch_device)
    width, height = image_size(image)
    pixels = read_image(image, encoder)[None].to(torch_device)
    with torch.no_grad():
        output = encoder(pixels)
    model = {"name": content["build"]["model_name"], "epoch": content["epoch"], **content["preprocessing"]}
    report: dict[str, Any] = {
        "image": {"path": str(image), "width": width, "height": height},
        "model": model,
        "outputs": describe_outputs(output),
    }
    if save_maps:
        plot_maps(save_maps, encoder, pixels, output)
        report["maps"] = str(save_maps)
    text = (
        f"{printable(image)}: {width} x {height}, model input {model['image_size']} x {model['image_size']}\n"
        f"{weights}: {model['name']}, epoch {model['epoch']}\n\n{format_outputs(report['outputs'])}"
    )
    text += f"\nmaps are in {save_maps}" if save_maps else ""
    print(dumps(report, ensure_ascii=False) if json else text)
    return report


def describe_outputs(output: StyleOutput) -> dict[str, dict[str, Any]]:
    """{name: shape, dtype, device and statistics} of every output of one image (batch of 1); {} if not trained."""
    tensors = {
        "embed": output.embed,
        "pooled embed": output.pooled,
        "attention mask": output.mask,
        "style": output.style,
        "patches": output.features.patches,
        "backbone pooled": output.features.pooled,
    }
    return {
        name: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "device": str(tensor.device),
            **{column: getattr(tensor.detach().float(), column)().item() for column in COLUMNS},
        }
        if tensor is not None
        else {}
        for name, tensor in tensors.items()
    }


def format_outputs(outputs: dict[str, dict[str, Any]]) -> str:
    header = f"{'output':16}{'shape':18}{'dtype':10}{'device':8}" + "".join(f"{name:>10}" for name in COLUMNS)
    lines = [header, "-" * len(header)]
    for name, values in outputs.items():
        if not values:
            lines.append(f"{name:16}not trained: the training data had no such target, or it was ignored")
            continue
        numbers = "".join(f"{values[column]:10.4f}" for column in COLUMNS)
        lines.append(f"{name:16}{str(tuple(values['shape'])):18}{values['dtype']:10}{values['device']:8}{numbers}")
    if mask := outputs["attention mask"]:
        length = mask["shape"][1]
        lines.append(f"\nThe mask is predicted: {round(mask['mean'] * length)} of {length} tokens are real.")
    return "\n".join(lines)


@torch.no_grad()
def patch_colours(output: StyleOutput) -> torch.Tensor:
    """Patch features as colours: their first three principal components, scaled to [0, 1] -> (rows, columns, 3)."""
    patches = output.features.patches[0].float()  # (N, V)
    centred = patches - patches.mean(0)
    colours = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:3].T  # (N, <= 3)
    low, high = torch.quantile(colours, 0.02, dim=0), torch.quantile(colours, 0.98, dim=0)
    colours = ((colours - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    rows, columns = output.features.grid
    return F.pad(colours, (0, 3 - colours.shape[1])).reshape(rows, columns, 3).cpu()


def style_sensitivity(encoder: VisionStyleEncoder, image: torch.Tensor, probes: int = 16) -> torch.Tensor:
    """Influence of each position of image (1, 3, H, W) on the style vector -> (H, W) in [0, 1].

    For the maps A that the style head reads: the mean over random directions v of (sum_c A_c dv.style/dA_c)^2 at each
    position, an estimate of the squared norm of Jacobian times activation (Hutchinson 1990), summed over the depths.
    """
    feature_maps = [feature_map.detach().requires_grad_(True) for feature_map in encoder.tower(image).feature_maps]
    style = encoder.style_head(image, feature_maps)[0]  # (S,)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(image.shape[-2:], device=image.device)
    for _ in range(probes):
        direction = torch.randn(len(style), generator=generator).to(style)
        gradients = torch.autograd.grad(style @ direction, feature_maps, retain_graph=True)
        for feature_map, gradient in zip(feature_maps, gradients):
            per_area = (feature_map * gradient).sum(1, keepdim=True) * feature_map[0, 0].numel()  # (1, 1, h, w)
            total += F.interpolate(per_area**2, image.shape[-2:], mode="bilinear")[0, 0].detach()
    total = total.sqrt()
    return (total / total.quantile(0.99).clamp(min=1e-12)).clamp(0, 1).cpu()


@readable
def plot_maps(path: Path, encoder: VisionStyleEncoder, image: torch.Tensor, output: StyleOutput) -> None:
    """Three panels: model input, patch features as colours of 3 principal components, influence on the style vector."""
    pixels = image[0].permute(1, 2, 0).cpu().numpy()
    heat = style_sensitivity(encoder, image)
    figure = Figure(figsize=(7.5, 3), layout="constrained")  # inches: its text can be read on a phone
    axes = figure.subplots(1, 3)
    axes[0].imshow(pixels)
    axes[1].imshow(patch_colours(output).numpy(), interpolation="nearest")
    axes[2].imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=255, alpha=0.5)
    axes[2].imshow(heat.numpy(), cmap="inferno", alpha=0.7, vmin=0, vmax=1)
    figure.colorbar(ScalarMappable(cmap="inferno"), ax=axes[2], location="bottom", ticks=[0, 1])
    titles = (f"input, {pixels.shape[1]} x {pixels.shape[0]}", "patch features", "influence on style")
    for axis, title in zip(axes, titles):
        axis.set_title(title)
        axis.set_axis_off()
        axis.set_anchor("N")
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main)
