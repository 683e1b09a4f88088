"""Everything that a style encoder gives for one image.

    python inspect_image.py a.png --weights checkpoints/best.pth [--save_maps maps.png] [--json]

Prints shape, dtype, device, smallest, mean and largest value and norm of each output. The mask is the model's own
prediction where it was trained to give one; an output it was not trained to give is said to be missing.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from common.cli.errors import run_script
from common.images.io import open_image
from common.training.device import choose_device
from common.training.plots import save_figure
from model import StyleOutput, VisionStyleEncoder
from style_encoder import load_encoder, read_image


def describe_outputs(output: StyleOutput) -> dict[str, dict]:
    """{name: facts} of every output of one image (batch of 1)."""
    tensors = {
        "embed": output.embed,
        "pooled embed": output.pooled,
        "attention mask": output.mask,
        "style": output.style,
        "patches": output.features.patches,
        "backbone pooled": output.features.pooled,
    }
    return {name: _facts(tensor) if tensor is not None else {} for name, tensor in tensors.items()}


def _facts(tensor: torch.Tensor) -> dict:
    values = tensor.detach().float()
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": str(tensor.device),
        "min": values.min().item(),
        "mean": values.mean().item(),
        "max": values.max().item(),
        "norm": values.norm().item(),
    }


def format_report(outputs: dict[str, dict]) -> str:
    columns = f"{'output':16}{'shape':18}{'dtype':10}{'device':8}{'min':>10}{'mean':>10}{'max':>10}{'norm':>10}"
    lines = [columns, "-" * len(columns)]
    for name, facts in outputs.items():
        if not facts:
            lines.append(f"{name:16}not trained: the training data had no such target, or it was ignored")
            continue
        numbers = "".join(f"{facts[key]:10.4f}" for key in ("min", "mean", "max", "norm"))
        lines.append(f"{name:16}{str(tuple(facts['shape'])):18}{facts['dtype']:10}{facts['device']:8}{numbers}")
    if outputs["attention mask"]:
        shape = outputs["attention mask"]["shape"]
        real = round(outputs["attention mask"]["mean"] * shape[1])
        lines.append(f"\nThe mask is predicted: {real} of {shape[1]} tokens are real.")
    return "\n".join(lines)


@torch.no_grad()
def patch_colours(output: StyleOutput) -> torch.Tensor:
    """Patch features as colours: their first three principal components, scaled to [0, 1] -> (rows, columns, 3)."""
    patches = output.features.patches[0].float()  # (N, V)
    centred = patches - patches.mean(0)
    components = torch.linalg.svd(centred, full_matrices=False).Vh[:3]  # (<= 3, V)
    colours = centred @ components.T
    low, high = torch.quantile(colours, 0.02, dim=0), torch.quantile(colours, 0.98, dim=0)
    colours = ((colours - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    rows, columns = output.features.grid
    return F.pad(colours, (0, 3 - colours.shape[1])).reshape(rows, columns, 3).cpu()


def style_sensitivity(encoder: VisionStyleEncoder, image: torch.Tensor, probes: int = 16) -> torch.Tensor:
    """How much each place of image (1, 3, H, W) shapes the style vector -> (H, W) in [0, 1].

    For the maps A that the style head reads: the mean over random directions v of (sum_c A_c dv.style/dA_c)^2 at each
    place, an estimate of the squared norm of Jacobian times activation (Hutchinson 1990), summed over the depths.
    """
    features = encoder.tower(image)
    levels = [level.detach().requires_grad_(True) for level in features.levels]
    style = encoder.style_head(image, levels)[0]  # (S,)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(image.shape[-2:], device=image.device)
    for _ in range(probes):
        direction = torch.randn(len(style), generator=generator).to(style)
        gradients = torch.autograd.grad(style @ direction, levels, retain_graph=True)
        for level, gradient in zip(levels, gradients):
            squared = ((level * gradient).sum(1, keepdim=True) * level[0, 0].numel()) ** 2  # (1, 1, h, w), per area
            total += F.interpolate(squared, image.shape[-2:], mode="bilinear")[0, 0].detach()
    total = total.sqrt()
    return (total / total.quantile(0.99).clamp(min=1e-12)).clamp(0, 1).cpu()


def draw_maps(path: Path, encoder: VisionStyleEncoder, image: torch.Tensor, output: StyleOutput) -> None:
    """Three panels: what the model sees, its patch features as colours, where the style head looks."""
    seen = image[0].permute(1, 2, 0).cpu().numpy()
    with torch.enable_grad():
        heat = style_sensitivity(encoder, image)
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[0].imshow(seen)
    axes[0].set_title(f"what the model sees ({seen.shape[1]} x {seen.shape[0]})", fontsize=10)
    axes[1].imshow(patch_colours(output).numpy(), interpolation="nearest")
    axes[1].set_title("patch features, first 3 components", fontsize=10)
    axes[2].imshow(seen.mean(2), cmap="gray", vmin=0, vmax=255, alpha=0.5)
    shown = axes[2].imshow(heat.numpy(), cmap="inferno", alpha=0.7, vmin=0, vmax=1)
    axes[2].set_title("where the style head looks", fontsize=10)
    figure.colorbar(shown, ax=axes[2], shrink=0.8)
    for axis in axes:
        axis.set_axis_off()
    save_figure(figure, path)


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="inspect_image.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--weights", required=True, help="a .pth that train.py wrote")
    parser.add_argument("--save_maps", type=Path, help="draw patch features and the style head's attention here (PNG)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)

    device = choose_device(args.device)
    encoder, content = load_encoder(args.weights, device)
    width, height = open_image(args.image).size
    image = read_image(args.image, encoder)[None].to(device)
    with torch.no_grad():
        output = encoder(image)
    outputs = describe_outputs(output)
    report = {
        "image": {"path": str(args.image), "width": width, "height": height},
        "model": {"name": content["build"]["model_name"], "epoch": content["epoch"], **content["preprocessing"]},
        "outputs": outputs,
    }
    if args.save_maps:
        draw_maps(args.save_maps, encoder, image, output)
        report["maps"] = str(args.save_maps)
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
        return report
    model = report["model"]
    print(f"{args.image}: {width} x {height}, seen as {model['image_size']} x {model['image_size']}")
    print(f"{args.weights}: {model['name']}, epoch {model['epoch']}\n\n{format_report(outputs)}")
    if args.save_maps:
        print(f"maps are in {args.save_maps}")
    return report


if __name__ == "__main__":
    run_script(main)
