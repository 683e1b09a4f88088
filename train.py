"""Train the style encoder: settings -> data, model, plan -> the loop, one epoch after another.

python train.py                      with config.py as it is
python train.py --epochs 5           a setting overridden
python train.py --demo               drawn sample data and a small network, minutes on a CPU
python train.py --resume             go on after an interruption
torchrun --nproc_per_node 2 train.py        several GPUs; accelerate launch works too
"""

from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import timm.optim
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

import config
from common.cli.errors import run_script
from common.cli.settings import read_settings
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.transforms import Augmentation
from common.samples.layouts import MANIFEST, create_sample_dataset
from common.text.files import write_json
from common.training.device import make_accelerator
from common.training.loader import make_loader
from common.training.plots import neighbour_grid, plot_curves, write_projector
from common.training.run import Run
from common.training.schedule import TrainSchedule
from common.training.skip_log import check_skip_rate, report_skipped, write_skipped
from common.training.trainer import Trainer
from dataset import PKBatchSampler, Sample, StyleDataset, TargetShapes, find_samples, read_target_shapes, split_samples
from evaluate_style import baseline_vectors, format_table, score, style_vectors
from model import StyleTrainingModel, VisionStyleEncoder
from style_encoder import save_encoder


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    accelerator = make_accelerator(settings.device, settings.precision, settings.freeze_epochs > 0)
    with accelerator.main_process_first():
        if settings.demo and accelerator.is_main_process and not (Path(settings.data_dir) / MANIFEST).is_file():
            print(f"drawing sample data into {settings.data_dir}")
            create_sample_dataset(settings.data_dir, num_samples=720)
    samples = find_samples(settings.data_dir, settings.ignore_targets)
    shapes = read_target_shapes(samples)
    set_seed(settings.seed)
    encoder = build_encoder(settings, shapes)
    train_set, val_set, skipped = build_datasets(settings, samples, shapes, encoder.tower.image_size, accelerator)
    run, baselines = None, {}
    if accelerator.is_main_process:  # from here on the data is known to be good, and an older run may be moved aside
        run = Run(settings.checkpoint_dir, settings.log_dir, vars(settings), settings.resume)
        write_skipped(run.log_folder / "skipped.jsonl", skipped)
        if len(val_set):
            vectors = baseline_vectors(encoder.to(accelerator.device), val_set, accelerator.device)
            baselines = {name: score(one, val_set, per_style=True) for name, one in vectors.items()}
    trainer = build_trainer(settings, encoder, train_set, accelerator, run)
    if settings.resume:
        trainer.resume()
    else:
        set_seed(settings.seed, device_specific=True)  # dropout differs between devices
    if run:
        run.start_logging(trainer.progress.step)
        describe(train_set, val_set, shapes, trainer, run)

    tower, progress = encoder.tower, trainer.progress
    tower.freeze(progress.epoch < settings.freeze_epochs)
    for epoch, means in trainer.epochs():
        values, style = validate(epoch, means, trainer, val_set)
        patience_is_over = bool(settings.patience) and epoch - progress.best_epoch >= settings.patience
        if run:
            save_and_show(epoch, values, style, trainer, val_set, settings, final=patience_is_over)
        if patience_is_over:
            break
        tower.freeze(epoch + 1 < settings.freeze_epochs)
    results = finish(trainer, val_set, settings, baselines) if run else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def build_encoder(settings: Namespace, shapes: TargetShapes) -> VisionStyleEncoder:
    return VisionStyleEncoder(
        settings.model_name,
        settings.pretrained,
        settings.image_size or None,
        sequence_length=shapes.length,
        embed_width=shapes.embed_width,
        pooled_width=shapes.pooled_width,
        predict_mask=shapes.has_mask,
        style_width=settings.style_width,
        sequence_head=settings.sequence_head,
        drop_path_rate=settings.drop_path,
        dropout=settings.dropout,
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def build_datasets(
    settings: Namespace, samples: list[Sample], shapes: TargetShapes, image_size: int, accelerator: Accelerator
) -> tuple[StyleDataset, StyleDataset, dict[str, str]]:
    """Decode every image once, leave out what is broken, split -> training set, validation set, {left out: why}."""
    paths = [sample.image for sample in samples]
    cache_dir = settings.cache_dir if settings.cache_images else None
    with accelerator.main_process_first():  # the others read the cache that the first has written
        images = ImageCache(paths, round(CACHE_SCALE * image_size), cache_dir, quiet=not accelerator.is_main_process)
    skipped = dict(images.skipped)
    usable = images.readable(samples)
    members = Counter(sample.style for sample in usable)
    for style in {sample.style for sample in samples}:
        if members[style] < 2:
            skipped[str(Path(settings.data_dir) / style)] = f"style '{style}' has {members[style]} image; 2 are needed"
    usable = [sample for sample in usable if members[sample.style] >= 2]
    if accelerator.is_main_process:
        report_skipped(skipped)
    check_skip_rate(images.skipped, len(samples), settings.max_skipped, settings.data_dir)
    train, val = split_samples(usable, settings.val_split, settings.val_styles, settings.seed)
    if not train:
        raise ValueError(f"{settings.data_dir}: no image is left to train on; at least 2 styles of 2 images are needed")
    augmentation = Augmentation(settings.crop_scale, settings.flip_prob, settings.seed)
    train_set = StyleDataset(train, images, image_size, shapes, augmentation)
    return train_set, StyleDataset(val, images, image_size, shapes), skipped


def build_trainer(
    settings: Namespace, encoder: VisionStyleEncoder, train_set: StyleDataset, accelerator: Accelerator, run: Run | None
) -> Trainer:
    batches = PKBatchSampler(
        train_set,
        settings.batch_size,
        settings.images_per_style,
        settings.remix_share,
        settings.grey_prob,
        settings.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = make_loader(train_set, batches, accelerator.device, settings.num_workers)
    weights = {name: value for name, value in vars(settings).items() if name.endswith("_weight")}
    parts = {name.removesuffix("_weight"): value for name, value in weights.items()}
    learner = StyleTrainingModel(encoder, parts, settings.temperature)
    backbone = timm.optim.param_groups_weight_decay(encoder.tower, settings.weight_decay)
    heads = [module for name, module in encoder.named_children() if name != "tower"]
    others = timm.optim.param_groups_weight_decay(torch.nn.ModuleList(heads), settings.weight_decay)
    groups = [{**group, "scale": settings.backbone_lr_scale} for group in backbone] + others
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    plan = TrainSchedule(
        settings.epochs,
        settings.learning_rate,
        settings.min_learning_rate,
        settings.warmup_steps,
        settings.clip_norm,
        settings.accumulation,
        settings.log_steps,
        settings.save_steps,
        settings.max_nonfinite_steps,
    )
    if settings.compile:
        encoder.compile()  # in place, so names of weights stay; the loss is too dynamic to gain
    last = Path(settings.checkpoint_dir) / "last"
    return Trainer(accelerator, learner, optimizer, loader, plan, run, last, settings.ema_decay)


def describe(train_set: StyleDataset, val_set: StyleDataset, shapes: TargetShapes, trainer: Trainer, run: Run) -> None:
    batches = trainer.loader.batch_sampler
    print(
        f"{len(train_set)} images of {len(train_set.styles)} styles to train on, {len(val_set)} of "
        f"{len(val_set.styles)} to validate; targets: "
        + (
            ", ".join(
                filter(
                    None,
                    [
                        f"embed ({shapes.length}, {shapes.embed_width})" if shapes.embed_width else "",
                        f"pooled ({shapes.pooled_width},)" if shapes.pooled_width else "",
                        "mask" if shapes.has_mask else "",
                    ],
                )
            )
            or "none, style contrast only"
        )
        + f"\n{trainer.steps_per_epoch} steps per epoch, {batches.plain} styles x {batches.images_per_group} images "
        f"and {batches.remixed} invented styles in a batch; logs in {run.log_folder}"
    )


def validate(
    epoch: int, means: dict[str, float], trainer: Trainer, val_set: StyleDataset
) -> tuple[dict[str, float], torch.Tensor | None]:
    """Score the validation set and keep book in progress -> values to log, style vectors (N, S).

    The main process measures and tells the others, so that all of them stop, or none.
    """
    progress, accelerator = trainer.progress, trainer.accelerator
    values = {f"train/{name}": value for name, value in means.items()}
    style = None
    if accelerator.is_main_process and len(val_set):
        style, _ = style_vectors(trainer.best_model.encoder, val_set, accelerator.device)
        for question, part in score(style, val_set).items():
            values |= {f"val/{question}_{name}": number for name, number in part.items()}
    values = broadcast_object_list([values])[0]
    metric = values.get("val/style_map_at_r", -values["train/loss"])
    if metric > progress.best:
        progress.best, progress.best_epoch = metric, epoch
    progress.history.append({"epoch": epoch + 1, "step": progress.step, **values})
    return values, style


def save_and_show(
    epoch: int,
    values: dict[str, float],
    style: torch.Tensor | None,
    trainer: Trainer,
    val_set: StyleDataset,
    settings: Namespace,
    final: bool,
) -> None:
    """What follows an epoch's validation: logs, model files that are due, pictures, one line."""
    progress, run, encoder = trainer.progress, trainer.run, trainer.best_model.encoder
    run.log(progress.step, {name: value for name, value in values.items() if name.startswith("val/")})
    facts = {
        "settings": vars(settings),
        "epoch": epoch + 1,
        "step": progress.step,
        "metrics": values,
        "styles": trainer.loader.dataset.styles,
        "validation": validation_statistics(style, val_set),
    }
    folder, better = Path(settings.checkpoint_dir), progress.best_epoch == epoch
    if better:
        save_encoder(folder / "best.pth", encoder, **facts)
    if final or epoch + 1 == settings.epochs or (epoch + 1) % settings.save_epochs == 0:
        save_encoder(folder / f"model_epoch_{epoch + 1}.pth", encoder, **facts)
    plot_curves(folder / "training_curves.png", progress.history, curves(progress.history))
    if style is not None:
        grid = neighbour_grid(val_set.pixels, style, val_set.style_ids)
        run.writer.add_image("nearest neighbours", grid, progress.step, dataformats="HWC")
    shown = {
        "loss": "train/loss",
        "AUC": "val/style_auc",
        "P@1": "val/style_precision_at_1",
        "MAP@R": "val/style_map_at_r",
        "content AUC": "val/content_auc",
    }
    line = "  ".join(f"{label} {values[name]:.3f}" for label, name in shown.items() if name in values)
    print(f"epoch {epoch + 1}/{settings.epochs}  {line}{'  best so far' if better else ''}")
    if final:
        print(f"stopped: no better validation for {settings.patience} epochs")


def curves(history: list[dict[str, float]]) -> dict[str, list[str]]:
    """Panels of training_curves.png."""
    names = list(dict.fromkeys(name for entry in history for name in entry))
    parts = [
        name
        for name in names
        if name.startswith("train/") and name not in ("train/loss", "train/anchors_without_positives")
    ]
    return {
        "training loss": ["train/loss"],
        "its parts, unweighted": parts if len(parts) > 1 else [],  # one part is the same curve once more
        "validation: style (higher is better) [0, 1]": [name for name in names if name.startswith("val/style_")],
        "validation: content (lower is better) [0, 1]": [name for name in names if name.startswith("val/content_")],
    }


def validation_statistics(style: torch.Tensor | None, val_set: StyleDataset, bank_size: int = 1000) -> dict[str, Any]:
    """What style_comparator.py needs to say how high a similarity is: quantiles over pairs, and a bank for CSLS."""
    if style is None or len(val_set.styles) < 2:
        return {}
    labels = torch.tensor(val_set.style_ids)
    chosen = torch.randperm(len(style), generator=torch.Generator().manual_seed(0))[:bank_size]
    similarity, same = style[chosen] @ style[chosen].T, labels[chosen][:, None] == labels[chosen][None]
    pairs = torch.ones_like(same).triu(1).bool()
    at = torch.linspace(0, 1, 1001)
    return {"bank": style[chosen].clone(), "other_style_quantiles": torch.quantile(similarity[pairs & ~same], at)}


def finish(trainer: Trainer, val_set: StyleDataset, settings: Namespace, baselines: dict[str, dict]) -> dict[str, Any]:
    """results.json, the projector and the last words of a run."""
    progress, run, folder = trainer.progress, trainer.run, Path(settings.checkpoint_dir)
    results = {
        "epochs": progress.epoch,
        "steps": progress.step,
        "best_epoch": progress.best_epoch + 1,
        "skipped_steps": progress.left_out,
        "history": progress.history,
    }
    if len(val_set):
        style, _ = style_vectors(trainer.best_model.encoder, val_set, trainer.accelerator.device)
        results["validation"] = {"style encoder": score(style, val_set, per_style=True), **baselines}
        styles = [sample.style for sample in val_set.samples]
        write_projector(run.writer, style, val_set.pixels, styles, progress.step)
        print(f"\nvalidation, {len(val_set)} images, the last epoch's model:\n{format_table(results['validation'])}\n")
    write_json(folder / "results.json", results)
    run.writer.close()
    trainer.report_skipped_steps()
    print(
        f"model      {folder / 'best.pth'} (epoch {progress.best_epoch + 1})\n"
        f"curves     {folder / 'training_curves.png'}\n"
        f"results    {folder / 'results.json'}\n"
        f"logs       tensorboard --logdir={settings.log_dir}"
    )
    return results


if __name__ == "__main__":
    run_script(main)
