"""Contrastive training of CLIP on image-text pairs.

python clip/train.py                     settings from clip/config.py and clip/config.json; every one is also a flag
python clip/train.py --demo                        generated scenes and a small network, minutes on a CPU
python clip/train.py --resume                      resume an interrupted run
torchrun --nproc_per_node 2 clip/train.py          several GPUs; accelerate launch works too
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from clip import config
from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__, config)

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from clip.architectures import canonical_name, check_architecture, is_architecture
from clip.checkpoint import load_clip, save_clip
from clip.dataset import Pair, PairDataset, find_data, find_pairs, split_pairs
from clip.embed import embed_pairs
from clip.metrics import measure_retrieval
from clip.model import CLIPModel
from clip.pair_files import Columns
from clip.pretrained import choose_weights
from clip.report import plot_metrics
from clip.training_model import CLIPTrainingModel, parameter_groups
from common.cli.errors import run_script
from common.cli.failures import batch_hint
from common.cli.paths import find_from_root
from common.cli.settings import read_settings
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.transforms import Augmentation
from common.metrics.retrieval import rank_both_ways, retrieval_scores, similarity_statistics
from common.training.device import make_accelerator
from common.training.loader import make_loader
from common.training.plots import plot_curves
from common.training.run import Run, choose_run_name
from common.training.samplers import DeterministicBatchSampler
from common.training.schedule import TrainSchedule
from common.training.skip_log import check_skip_rate, report_skipped, write_skipped
from common.training.trackers import installed_trackers
from common.training.trained_on import check_resume, describe_samples, digest_of, file_size, source_name
from common.training.trainer import Trainer

MODEL_SETTINGS = ("pretrained", "image_size", "projection_dim", "image_tower", "text_tower")
MODEL_SETTINGS += ("normalisation", "patch_dropout")
FIXED = (  # settings that a resumed run must repeat
    *("model_name", *MODEL_SETTINGS, "freeze_backbone", "lock_image", "layer_decay", "ema_decay", "loss"),
    *("val_split", "seed"),
)
CURVES = {
    "loss": ["train/loss"],
    "recall on validation, % [0, 100]": [f"val/{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)],
    "cosine of pairs": ["val/positive_similarity", "val/negative_similarity"],
    "learning rate": ["train/learning_rate"],
}

EPOCH_LINE = {
    "train/loss": "loss {:.3f}",
    "val/i2t_r1": "I2T R@1 {:.1f}",
    "val/i2t_r5": "R@5 {:.1f}",
    "val/t2i_r1": "T2I R@1 {:.1f}",
    "val/t2i_r5": "R@5 {:.1f}",
    "val/rsum": "RSum {:.1f}",
    "val/similarity_gap": "gap {:.3f}",
}
BEST = "best_model.pth"


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    settings.model_name = find_from_root(canonical_name(settings.model_name))
    check_settings(settings)
    trackers = installed_trackers(settings.report_to)
    name = choose_run_name(settings.run_name, "clip", settings.model_name)
    accelerator = make_accelerator(settings.device, settings.precision)
    with accelerator.main_process_first():
        settings.data_dir = str(find_data(settings.data_dir, settings.demo, accelerator.is_main_process))
        pairs, skipped = find_pairs(settings.data_dir, settings.text_fields, Columns.of(vars(settings)))
    set_seed(settings.seed)
    with accelerator.local_main_process_first():  # which downloads the weights
        model = build_model(settings)
    trained_on = describe_run(settings, model, pairs)
    if settings.resume:
        check_resume(trained_on, Path(settings.checkpoint_dir) / "last", "--resume", bool(accelerator.scaler))
    train_set, val_set, skipped = build_datasets(settings, pairs, skipped, model, accelerator)
    run = None
    if accelerator.is_main_process:  # the data is valid: an older run may be moved aside now
        folders = (settings.checkpoint_dir, settings.log_dir)
        run = Run(*folders, vars(settings), settings.resume, name, trackers, settings.results_dir, trained_on)
        write_skipped(run.log_folder / "skipped.jsonl", skipped)
    trainer = build_trainer(settings, model, train_set, accelerator, run)
    trainer.start(settings.resume, settings.seed)
    if run:
        print_summary(train_set, val_set, trainer, settings)

    for _, means in trainer.epochs():
        scores = validate(trainer, val_set) if run and len(val_set) else {}
        values = trainer.record_epoch(means, scores, "rsum")
        if run:
            if trainer.progress.is_best:
                save_clip(run.folder / BEST, trainer.eval_model.model, **trainer.checkpoint_metadata(values))
            plot_curves(run.results / "training_curves.png", trainer.progress.history, CURVES)
            trainer.print_epoch(values, EPOCH_LINE)
    results = evaluate_best(trainer, val_set) if run else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def check_settings(settings: Namespace) -> None:
    """Checks beyond the types of single settings."""
    if settings.freeze_backbone and settings.lock_image:
        raise ValueError("--freeze_backbone and --lock_image: the first freezes both towers, the second one; give one")
    if settings.image_weights and not settings.image_tower:
        raise ValueError("--image_weights: names weights of --image_tower, which is not given")
    changed = [name for name in MODEL_SETTINGS if getattr(settings, name) != getattr(config, name.upper())]
    if changed and is_complete_model(settings.model_name):
        raise ValueError(
            f"--{changed[0]}: {settings.model_name} is a complete model that defines this itself; omit the flag"
        )
    if is_complete_model(settings.model_name):
        return
    check_architecture(settings.model_name)
    if weights_of(settings):
        return
    image_is_random = not (settings.image_tower and settings.image_weights)
    is_random = image_is_random or (settings.freeze_backbone and not settings.text_tower)
    if is_random and (settings.freeze_backbone or settings.lock_image):
        flag = "--freeze_backbone" if settings.freeze_backbone else "--lock_image"
        raise ValueError(
            f"{flag}: {settings.model_name} starts from random weights here, which would stay random; give "
            "--pretrained openai (for all but small) or a file of weights, or omit the flag"
        )


def is_complete_model(name: str) -> bool:
    """Whether this is a checkpoint, folder, name on the Hub or NAME:TAG of open_clip, and not an architecture."""
    return Path(name).exists() or (("/" in name or ":" in name) and not is_architecture(name))


def weights_of(settings: Namespace) -> str | None:
    """What an architecture starts from: a tag of open_clip or a file; None: random weights."""
    is_plain = not settings.image_tower and not settings.text_tower
    return choose_weights(settings.pretrained, settings.model_name, is_plain)


def build_model(settings: Namespace) -> CLIPModel:
    if is_complete_model(settings.model_name):
        model, _ = load_clip(settings.model_name)
        model.train()
    else:
        model = CLIPModel(
            settings.model_name,
            weights_of(settings),
            image_size=settings.image_size or None,
            projection_dim=settings.projection_dim or None,
            patch_dropout=settings.patch_dropout,
            image_tower=settings.image_tower or None,
            image_weights=settings.image_weights,
            text_tower=settings.text_tower or None,
            sigmoid=settings.loss == "siglip",
            normalisation=settings.normalisation,
        )
    if settings.loss == "siglip" and model.network.logit_bias is None:
        raise ValueError(f"--loss siglip: {settings.model_name} was trained with --loss clip and has no bias; use that")
    if settings.freeze_backbone:
        model.freeze_backbone()
    if settings.lock_image:
        model.lock_image_tower()
    if settings.gradient_checkpointing:
        model.network.set_grad_checkpointing()
    return model


def describe_run(settings: Namespace, model: CLIPModel, pairs: list[Pair]) -> dict[str, Any]:
    """What a resumed run must repeat. Memory alone decides how a batch is divided into accum_batches."""
    return {
        **{name: source_name(getattr(settings, name)) for name in FIXED},
        "batch_size * accum_batches": settings.batch_size * settings.accum_batches,
        "model": digest_of(model.config),
        "data": describe_samples((pair.key, file_size(pair.image), pair.texts, pair.character) for pair in pairs),
    }


def build_datasets(
    settings: Namespace, pairs: list, skipped: dict[str, str], model: CLIPModel, accelerator: Accelerator
) -> tuple[PairDataset, PairDataset, dict[str, str]]:
    """Decode every image once, skip unreadable ones, split -> training set, validation set, {skipped: reason}."""
    with accelerator.main_process_first():  # the others read the cache that the first has written
        images = ImageCache(
            [pair.image for pair in pairs],
            round(CACHE_SCALE * model.image_size),
            settings.cache_dir if settings.cache_images else None,
            quiet=not accelerator.is_main_process,
        )
    total = len(pairs) + len(skipped)
    skipped = skipped | images.skipped
    if accelerator.is_main_process:
        report_skipped(skipped)
    check_skip_rate(skipped, total, settings.max_skipped, settings.data_dir)
    train, val = split_pairs(images.readable(pairs), settings.val_split, settings.seed)
    augmentation = Augmentation(settings.crop_scale, settings.flip_prob, settings.seed)
    train_set = PairDataset(train, images, model.preprocess, model.tokenizer, augmentation)
    return train_set, PairDataset(val, images, model.preprocess, model.tokenizer), skipped


def build_trainer(
    settings: Namespace, model: CLIPModel, train_set: PairDataset, accelerator: Accelerator, run: Run | None
) -> Trainer:
    batches = DeterministicBatchSampler(
        len(train_set),
        settings.batch_size * settings.accum_batches,
        settings.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = make_loader(train_set, batches, accelerator.device, settings.num_workers, train_set.collate)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay, settings.layer_decay),
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )
    schedule = TrainSchedule(
        settings.num_epochs,
        settings.learning_rate,
        settings.min_learning_rate,
        settings.warmup_steps,
        settings.gradient_clip_norm,
        1,
        settings.log_steps,
        settings.save_steps,
        settings.max_nonfinite_steps,
        settings.patience,
    )
    if settings.compile:
        model.network.visual.compile()  # in place keeps parameter names; texts vary too much in length
    training_model = CLIPTrainingModel(model, settings.loss, not settings.single_positive, settings.accum_batches)
    return Trainer(
        accelerator,
        training_model,
        optimizer,
        loader,
        schedule,
        run,
        Path(settings.checkpoint_dir) / "last",
        settings.ema_decay,
    )


def print_summary(train_set: PairDataset, val_set: PairDataset, trainer: Trainer, settings: Namespace) -> None:
    trainable = sum(parameter.numel() for parameter in trainer.unwrapped_model.parameters() if parameter.requires_grad)
    texts = train_set.unique_texts + val_set.unique_texts
    truncated = train_set.truncated_texts + val_set.truncated_texts
    weights = "its own" if is_complete_model(settings.model_name) else weights_of(settings) or "random"
    print(
        f"{len(train_set)} images to train on, {len(val_set)} to validate; {texts} unique texts, {truncated} "
        f"({truncated / texts:.1%}) truncated to "
        f"{trainer.unwrapped_model.model.tokenizer.context_length} tokens\n"
        f"{settings.model_name}, weights: {weights}; {trainable / 1e6:.1f} million trainable parameters; "
        f"{trainer.steps_per_epoch} steps per epoch of {trainer.batch_sampler.batch_size} pairs; "
        f"logs in {trainer.run.log_folder}"
    )


def validate(trainer: Trainer, val_set: PairDataset) -> dict[str, float]:
    """-> retrieval scores and similarity statistics of the validation set."""
    return retrieval_scores(*embed_pairs(trainer.eval_model.model, val_set, trainer.accelerator.device, quiet=True)[:4])


def evaluate_best(trainer: Trainer, val_set: PairDataset) -> dict[str, Any]:
    """training_results.json, model_metrics.png of the best model, and the closing lines."""
    run, results, device = trainer.run, trainer.progress.results(), trainer.accelerator.device
    if len(val_set):
        model, _ = load_clip(run.folder / BEST, device)
        embeddings = embed_pairs(model, val_set, device, quiet=True)
        results["retrieval"] = measure_retrieval(*rank_both_ways(*embeddings[:4]), embeddings.image_of_text)
        plot_metrics(run.results / "model_metrics.png", results["retrieval"], similarity_statistics(*embeddings[:4]))
    plots = f"{run.results / 'training_curves.png'}, {run.results / 'model_metrics.png'}"
    command = ["clip/evaluate.py", "--weights", run.folder / BEST, "--data_dir", run.settings["data_dir"]]
    trainer.finish(results, run.results / "training_results.json", run.folder / BEST, plots, EPOCH_LINE, command)
    return results


if __name__ == "__main__":
    run_script(main, batch_hint("clip", "lower --batch_size and raise --accum_batches, which keeps the contrast"))
