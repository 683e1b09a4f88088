"""Training of the style encoder: settings -> data, model, schedule -> epochs of training and validation.

python train.py                      settings of config.py
python train.py --epochs 5           one of them overridden
python train.py --demo               sample data and a small network, minutes on a CPU
python train.py --resume             continue an interrupted run
torchrun --nproc_per_node 2 train.py        several GPUs; accelerate launch works too
"""

from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import config
from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__, config)

import numpy as np
import timm.optim
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import default_collate

from batch_sampler import PKBatchSampler
from common.cli.errors import one_line, run_script
from common.cli.failures import batch_hint
from common.cli.paths import find_from_root
from common.cli.settings import read_settings
from common.images.cache import CACHE_SCALE, CHECKED, ImageCache
from common.images.transforms import Augmentation
from common.samples.invented import read_bank
from common.samples.layouts import offer_samples
from common.training.closing import format_values
from common.training.device import make_accelerator
from common.training.loader import make_loader
from common.training.plots import neighbour_sheet, write_projector
from common.training.run import Run, choose_run_name
from common.training.schedule import TrainSchedule
from common.training.skip_log import SkipLog, check_skip_rate, report_skipped, write_skipped
from common.training.trackers import installed_trackers
from common.training.trained_on import check_resume, describe_samples, describe_tensors, source_name
from common.training.trainer import Trainer
from common.training.unused_parameters import freeze_unused
from dataset import StyleDataset, drop_small_styles, find_samples, split_samples
from evaluate_style import UNTRAINED, baseline_vectors, format_table, score, style_vectors
from fit_names import add_names
from model import StyleTrainingModel, VisionStyleEncoder
from sample_table import SampleTable
from style_bank import reference_statistics
from style_curves import plot_style_curves
from style_encoder import build_untrained, load_encoder, save_encoder
from style_readout import fit_readout
from targets import TargetShapes, read_target_shapes
from text_encoder import read_record

FIXED = (  # settings that a resumed run must repeat
    "model_name image_size frozen_maps sequence_head style_width ema_decay batch_size accumulation images_per_style "
    "remix_share drawn_share drawn_styles grey_prob val_split val_styles cache_format seed"
).split()
DRAWINGS_PER_STYLE = 12  # of an invented style
CURVES = "training_curves.png"
EPOCH_LINE = {
    "train/loss": "loss {:.3f}",
    "val/style_auc": "AUC {:.3f}",
    "val/style_precision_at_1": "P@1 {:.3f}",
    "val/style_map_at_r": "MAP@R {:.3f}",
    "val/content_auc": "content AUC {:.3f}",
}


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    trackers = installed_trackers(settings.report_to)
    name = choose_run_name(settings.run_name, "style", settings.model_name)
    settings.frozen_maps *= bool(settings.pretrained)  # from scratch there is nothing to keep
    accelerator = make_accelerator(settings.device, settings.precision, settings.freeze_epochs > 0)
    with accelerator.main_process_first():
        settings.data_dir = find_from_root(settings.data_dir)
        if settings.demo and accelerator.is_main_process:
            offer_samples(settings.data_dir, 720, layout="styles")
    samples = find_samples(settings.data_dir, settings.ignore_targets)
    shapes = read_target_shapes(samples)
    set_seed(settings.seed)
    encoder = build_encoder(settings, shapes)
    trained_on = {name: source_name(getattr(settings, name)) for name in FIXED}
    data = describe_samples(samples.identities())
    trained_on |= {"model": describe_tensors(encoder.state_dict()), "data": data}
    if settings.resume:
        check_resume(trained_on, Path(settings.checkpoint_dir) / "last", "--resume", bool(accelerator.scaler))
    train_set, val_set, skipped = build_datasets(settings, samples, shapes, encoder.tower.image_size, accelerator)
    run = None
    if accelerator.is_main_process and not settings.resume:  # other processes receive it with the weights
        fit_readout(encoder.to(accelerator.device), train_set, accelerator.device, settings.seed)
    if accelerator.is_main_process:  # the data is valid, so an earlier run may now be moved
        folders = (settings.checkpoint_dir, settings.log_dir)
        run = Run(*folders, vars(settings), settings.resume, name, trackers, trained_on=trained_on)
        write_skipped(run.log_folder / "skipped.jsonl", skipped)
    log_folder = broadcast_object_list([run.log_folder if run else None])[0]
    train_set.skipped = val_set.skipped = SkipLog(log_folder / "skipped.jsonl", settings.max_skipped, quiet=False)
    trainer = build_trainer(settings, encoder, train_set, accelerator, run)
    trainer.start(settings.resume, settings.seed)
    if run:
        print_summary(train_set, val_set, shapes, trainer)

    encoder.tower.freeze(trainer.progress.epoch < settings.freeze_epochs)
    for epoch, means in trainer.epochs():
        scores, style = validate(trainer, val_set) if run and len(val_set) else ({}, None)
        values = trainer.record_epoch(means, scores, "style_map_at_r")
        if run:
            save_and_plot(values, style, trainer, val_set, settings.save_epochs)
            trainer.print_epoch(values, EPOCH_LINE)
        encoder.tower.freeze(epoch + 1 < settings.freeze_epochs)
    results = finish(trainer, val_set) if run else {}
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
        frozen_maps=settings.frozen_maps,
        sequence_head=settings.sequence_head,
        drop_path_rate=settings.drop_path,
        dropout=settings.dropout,
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def build_datasets(
    settings: Namespace, samples: SampleTable, shapes: TargetShapes, image_size: int, accelerator: Accelerator
) -> tuple[StyleDataset, StyleDataset, dict[str, str]]:
    """Read a few images, skip unusable ones, split -> training set, validation set, {skipped: reason}."""
    cache_dir = settings.cache_dir if settings.cache_images else None
    quiet = not accelerator.is_main_process
    size = round(CACHE_SCALE * image_size)
    images = ImageCache(size, cache_dir, settings.cache_gb, settings.data_dir, quiet, settings.cache_format)
    with accelerator.local_main_process_first():  # the others read what the first has decoded
        unreadable = images.check(samples.images)
    check_skip_rate(unreadable, min(len(samples), CHECKED), settings.max_skipped, settings.data_dir)
    usable, small = drop_small_styles(samples.without(unreadable))
    skipped = unreadable | samples.skipped | small
    if accelerator.is_main_process:
        report_skipped(skipped)
    train, val = split_samples(usable, settings.val_split, settings.val_styles, settings.seed)
    if not train:
        raise ValueError(f"{settings.data_dir}: no images to train on; at least 2 styles of 2 images are needed")
    augmentation = Augmentation(settings.crop_scale, settings.flip_prob, settings.seed)
    with accelerator.local_main_process_first():
        drawn = read_bank(settings.drawn_styles, DRAWINGS_PER_STYLE, image_size, cache_dir)
    train_set = StyleDataset(train, images, image_size, shapes, augmentation, drawn=drawn)
    return train_set, StyleDataset(val, images, image_size, shapes), skipped


def build_trainer(
    settings: Namespace, encoder: VisionStyleEncoder, train_set: StyleDataset, accelerator: Accelerator, run: Run | None
) -> Trainer:
    sampler = PKBatchSampler(
        train_set,
        settings.batch_size,
        settings.images_per_style,
        settings.remix_share,
        settings.drawn_share,
        settings.grey_prob,
        settings.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = make_loader(train_set, sampler, accelerator.device, settings.num_workers)
    weights = {
        name.removesuffix("_weight"): value for name, value in vars(settings).items() if name.endswith("_weight")
    }
    model = StyleTrainingModel(encoder, weights, settings.temperature).to(accelerator.device)
    ends = (0, 1, len(train_set) - 2, len(train_set) - 1)  # of two styles
    freeze_unused(model, default_collate([train_set[index] for index in ends]))
    backbone = timm.optim.param_groups_weight_decay(encoder.tower, settings.weight_decay)
    heads = torch.nn.ModuleList(module for name, module in encoder.named_children() if name != "tower")
    groups = [{**group, "scale": settings.backbone_lr_scale} for group in backbone]
    groups += timm.optim.param_groups_weight_decay(heads, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    schedule = TrainSchedule(**{field.name: getattr(settings, field.name) for field in fields(TrainSchedule)})
    if settings.compile:
        encoder.compile()  # in place, so names of weights stay; the loss is too dynamic to gain
    return Trainer(
        accelerator,
        model,
        optimizer,
        loader,
        schedule,
        run,
        state_dir=Path(settings.checkpoint_dir) / "last",
        ema_decay=settings.ema_decay,
    )


def print_summary(train_set: StyleDataset, val_set: StyleDataset, shapes: TargetShapes, trainer: Trainer) -> None:
    sampler = trainer.batch_sampler
    targets = {
        f"embed ({shapes.length}, {shapes.embed_width})": shapes.embed_width,
        f"pooled ({shapes.pooled_width},)": shapes.pooled_width,
        "mask": shapes.has_mask,
    }
    names = ", ".join(name for name, present in targets.items() if present) or "none, style contrast only"
    print(
        f"{len(train_set)} images of {len(train_set.styles)} styles to train on "
        f"({shorten(', '.join(train_set.styles), 80)}), {len(val_set)} of {len(val_set.styles)} to validate; "
        f"targets: {names}\n"
        f"{trainer.steps_per_epoch} steps per epoch, {sampler.plain} styles x {sampler.images_per_group} images "
        f"and {sampler.remixed} redrawn and {sampler.drawn} drawn styles in a batch; logs in {trainer.run.log_folder}"
    )


def validate(trainer: Trainer, val_set: StyleDataset) -> tuple[dict[str, float], torch.Tensor]:
    """-> scores, style vectors (N, S) of the validation set."""
    style = style_vectors(trainer.eval_model.encoder, val_set, trainer.accelerator.device)
    parts = score(style, val_set)
    return {f"{kind}_{name}": value for kind, part in parts.items() for name, value in part.items()}, style


def save_and_plot(
    values: dict[str, float], style: torch.Tensor | None, trainer: Trainer, val_set: StyleDataset, save_epochs: int
) -> None:
    """Model files that are due, training_curves.png, and nearest neighbours in TensorBoard."""
    encoder, folder, epoch = trainer.eval_model.encoder, trainer.run.folder, trainer.progress.epoch + 1
    due = ["best.pth"] if trainer.progress.is_best else []
    if trainer.is_last_epoch or epoch % save_epochs == 0:
        due.append(f"model_epoch_{epoch}.pth")
    if due:
        train_set, metadata = cast(StyleDataset, trainer.loader.dataset), trainer.checkpoint_metadata(values)
        metadata["styles"] = train_set.styles
        if style is not None:
            unseen = set(train_set.styles).isdisjoint(val_set.styles)
            metadata["validation"] = reference_statistics(style, val_set.style_ids.tolist(), unseen)
        for name in due:
            save_encoder(folder / name, encoder, **metadata)
    plot_style_curves(folder / CURVES, trainer.progress.history)
    if style is not None and trainer.progress.is_best:  # a sheet of half a megabyte
        sheet = neighbour_sheet(val_set.pixels, style, val_set.style_ids.tolist(), val_set.styles)
        trainer.run.writer.add_image("nearest neighbours", np.asarray(sheet), trainer.progress.step, dataformats="HWC")


def finish(trainer: Trainer, val_set: StyleDataset) -> dict[str, Any]:
    """results.json, TensorBoard's embedding projector, and the closing lines, all of the best epoch's model."""
    run, progress, results = trainer.run, trainer.progress, trainer.progress.results()
    model_file = run.folder / "best.pth"
    if len(val_set):
        device = trainer.accelerator.device
        encoder, content = load_encoder(model_file, device)
        style = style_vectors(encoder, val_set, device)
        baselines = baseline_vectors(build_untrained(content, device)[0], val_set, device)
        vectors = {"style encoder": style, **baselines}
        results["validation"] = {name: score(rows, val_set, per_style=True) for name, rows in vectors.items()}
        plot_style_curves(run.folder / CURVES, progress.history, results["validation"].get(UNTRAINED, {}))
        styles = val_set.samples.styles
        write_projector(run.writer, style, val_set.pixels, styles, content["step"])
        print(f"\nvalidation, {len(val_set)} images, the model of epoch {progress.best_epoch + 1} (best.pth):")
        print(format_table(results["validation"]))
        if not progress.is_best:
            last = "  ".join(format_values(progress.history[-1], EPOCH_LINE))
            print(f"epoch {progress.epoch}, the last one, was not the best: {last}")
    settings, train_set = run.settings, cast(StyleDataset, trainer.loader.dataset)
    if record := read_record(Path(settings["data_dir"])):
        drawn, cache_dir = 4 * settings["drawn_styles"], settings["cache_dir"] if settings["cache_images"] else None
        try:
            add_names(model_file, record, train_set.samples, drawn, trainer.accelerator.device, cache_dir)
        except (ValueError, OSError) as error:  # such as a text encoder that this machine lacks
            print(f"no names for --names: {one_line(error)}; fit_names.py fits them later")
    plots, results_file = str(run.folder / CURVES), run.folder / "results.json"
    command = ["evaluate_style.py", "--weights", model_file, "--data_dir", settings["data_dir"]]
    trainer.finish(results, results_file, model_file, plots, EPOCH_LINE, command)
    return results


if __name__ == "__main__":
    run_script(main, batch_hint("style", "lower --batch_size, or give --gradient_checkpointing"))
