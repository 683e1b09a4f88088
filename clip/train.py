"""Train CLIP: images and texts that belong together come close, all others apart.

python clip/train.py                     settings from clip/config.py and clip/config.json; every one is also a flag
python clip/train.py --demo                        drawn scenes and a small network, minutes on a CPU
python clip/train.py --resume                      go on after an interruption
torchrun --nproc_per_node 2 clip/train.py          several GPUs; accelerate launch works too
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from clip import config
from clip.architectures import OPENAI_NAMES
from clip.checkpoint import load_clip, save_clip
from clip.dataset import PairDataset, create_sample_dataset, find_pairs, split_pairs
from clip.embed import encode_pairs
from clip.losses import LOSSES
from clip.metrics import measure_retrieval
from clip.model import CLIPModel
from clip.optimizer import parameter_groups
from clip.plots import draw_both
from clip.training_model import CLIPTrainingModel
from common.cli.errors import run_script
from common.cli.settings import read_settings
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.transforms import Augmentation
from common.metrics.retrieval import rank_both_ways, retrieval_scores, same_words, similarity_statistics
from common.text.files import write_json
from common.training.device import make_accelerator
from common.training.loader import make_loader
from common.training.plots import plot_curves
from common.training.run import Run
from common.training.samplers import DeterministicBatchSampler
from common.training.schedule import TrainSchedule
from common.training.skip_log import check_skip_rate, report_skipped, write_skipped
from common.training.trainer import Trainer

BUILDING = ("pretrained", "image_size", "projection_dim", "image_tower", "text_tower", "normalisation", "patch_dropout")
CURVES = {
    "loss": ["train/loss"],
    "recall on validation, % [0, 100]": [f"val/{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)],
    "cosine of pairs": ["val/positive_similarity", "val/negative_similarity"],
    "learning rate": ["train/learning_rate"],
}


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    check(settings)
    accelerator = make_accelerator(settings.device, settings.precision)
    with accelerator.main_process_first():
        pairs, skipped = read_pairs(settings, accelerator.is_main_process)
    set_seed(settings.seed)
    model = build_model(settings)
    train_set, val_set, skipped = build_datasets(settings, pairs, skipped, model, accelerator)
    run = None
    if accelerator.is_main_process:  # from here on the data is known to be good, and an older run may be moved aside
        run = Run(settings.checkpoint_dir, settings.log_dir, vars(settings), settings.resume, settings.results_dir)
        write_skipped(run.log_folder / "skipped.jsonl", skipped)
    trainer = build_trainer(settings, model, train_set, accelerator, run)
    if settings.resume:
        trainer.resume()
    else:
        set_seed(settings.seed, device_specific=True)  # dropout differs between devices
    if run:
        run.start_logging(trainer.progress.step)
        describe(train_set, val_set, trainer, settings, run)

    progress = trainer.progress
    for epoch, means in trainer.epochs():
        values = validate(epoch, means, trainer, val_set)
        patience_is_over = bool(settings.patience) and epoch - progress.best_epoch >= settings.patience
        if run:
            save_and_show(epoch, values, trainer, settings)
        if patience_is_over:
            if run:
                print(f"stopped: no better RSum for {settings.patience} epochs")
            break
    results = finish(trainer, val_set, settings) if run else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def check(settings: Namespace) -> None:
    """What the types of the settings cannot say."""
    if settings.loss not in LOSSES:
        raise ValueError(f"--loss {settings.loss}: expected {' or '.join(LOSSES)}")
    for name in ("batch_size", "accum_batches", "num_epochs"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name} {getattr(settings, name)}: expected 1 or more")
    if settings.freeze_backbone and settings.lock_image:
        raise ValueError("--freeze_backbone and --lock_image: the first freezes both towers, the second one; give one")
    if settings.image_weights and not settings.image_tower:
        raise ValueError("--image_weights: names weights of --image_tower, which is not given")
    if is_whole_model(settings.model_name):
        for name in BUILDING:
            if getattr(settings, name) != getattr(config, name.upper()):
                raise ValueError(
                    f"--{name}: {settings.model_name} is a whole model and says itself how it is built; leave this out"
                )


def is_whole_model(name: str) -> bool:
    """A file of ours, or a folder or hub name of a Hugging Face CLIP, in place of one of our names."""
    return Path(name).exists() or ("/" in name and name not in OPENAI_NAMES)


def read_pairs(settings: Namespace, is_main: bool) -> tuple[list, dict[str, str]]:
    """The data, or drawn samples where the default folder, or the demo's, holds none."""
    ours = settings.demo or settings.data_dir == config.DATA_DIR
    try:
        return find_pairs(settings.data_dir, settings.text_fields)
    except FileNotFoundError:
        if not ours:  # a folder that somebody named and that is not there is a mistake, not a wish for samples
            raise
    if is_main:
        count = 800 if settings.demo else 100
        print(f"no pairs in {settings.data_dir}: drawing {count} sample scenes with captions there")
        create_sample_dataset(settings.data_dir, num_samples=count)
    return find_pairs(settings.data_dir, settings.text_fields)


def build_model(settings: Namespace) -> CLIPModel:
    if is_whole_model(settings.model_name):
        model, _ = load_clip(settings.model_name)
        model.train()
    else:
        model = CLIPModel(
            settings.model_name,
            settings.pretrained or None,
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
        model.set_grad_checkpointing()
    return model


def build_datasets(
    settings: Namespace, pairs: list, skipped: dict[str, str], model: CLIPModel, accelerator: Accelerator
) -> tuple[PairDataset, PairDataset, dict[str, str]]:
    """Decode every image once, leave out what is broken, split -> training set, validation set, {left out: why}."""
    is_main = accelerator.is_main_process
    paths = [pair.image for pair in pairs]
    cache_dir = settings.cache_dir if settings.cache_images else None
    with accelerator.main_process_first():  # the others read the cache that the first has written
        images = ImageCache(paths, round(CACHE_SCALE * model.image_size), cache_dir, quiet=not is_main)
    total = len(pairs) + len(skipped)
    skipped = skipped | images.skipped
    if is_main:
        report_skipped(skipped)
    check_skip_rate(skipped, total, settings.max_skipped, settings.data_dir)
    train, val = split_pairs(images.readable(pairs), settings.val_split, settings.seed)
    augmentation = Augmentation(settings.crop_scale, settings.flip_prob, settings.seed)
    train_set = PairDataset(train, images, model.image_size, model.tokenizer, augmentation)
    return train_set, PairDataset(val, images, model.image_size, model.tokenizer), skipped


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
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    plan = TrainSchedule(
        settings.num_epochs,
        settings.learning_rate,
        settings.min_learning_rate,
        settings.warmup_steps,
        settings.gradient_clip_norm,
        1,
        settings.log_steps,
        settings.save_steps,
        settings.max_nonfinite_steps,
    )
    if settings.compile:
        model.network.visual.compile()  # in place, so names of weights stay; texts change their length too often
    learner = CLIPTrainingModel(model, settings.loss, not settings.plain, settings.accum_batches)
    last = Path(settings.checkpoint_dir) / "last"
    return Trainer(accelerator, learner, optimizer, loader, plan, run, last, settings.ema_decay)


def describe(train_set: PairDataset, val_set: PairDataset, trainer: Trainer, settings: Namespace, run: Run) -> None:
    learning = sum(parameter.numel() for parameter in trainer.plain_model.parameters() if parameter.requires_grad)
    texts, cut = train_set.all_texts + val_set.all_texts, train_set.cut_texts + val_set.cut_texts
    limit = trainer.plain_model.model.tokenizer.context_length
    print(
        f"{len(train_set)} images to train on, {len(val_set)} to validate; {texts} different texts, "
        f"{cut} ({cut / texts:.1%}) longer than {limit} tokens and cut\n"
        f"{settings.model_name}, {learning / 1e6:.1f} million parameters learn; {trainer.steps_per_epoch} steps per "
        f"epoch of {trainer.loader.batch_sampler.batch_size} pairs; logs in {run.log_folder}"
    )


def validate(epoch: int, means: dict[str, float], trainer: Trainer, val_set: PairDataset) -> dict[str, float]:
    """Score the validation set and keep book in progress -> values to log.

    The main process measures and tells the others, so that all of them stop, or none.
    """
    progress, accelerator = trainer.progress, trainer.accelerator
    values = {f"train/{name}": value for name, value in means.items()}
    values["train/learning_rate"] = max(group["lr"] for group in trainer.optimizer.param_groups)
    if accelerator.is_main_process and len(val_set):
        found = encode_pairs(trainer.best_model.model, val_set, accelerator.device, quiet=True)
        scores = retrieval_scores(*found[:3], same_words(found.texts))
        values |= {f"val/{name}": value for name, value in scores.items()}
    values = broadcast_object_list([values])[0]
    metric = values.get("val/rsum", -values["train/loss"])
    if metric > progress.best:
        progress.best, progress.best_epoch = metric, epoch
    progress.history.append({"epoch": epoch + 1, "step": progress.step, **values})
    return values


def save_and_show(epoch: int, values: dict[str, float], trainer: Trainer, settings: Namespace) -> None:
    """What follows an epoch's validation: logs, the best model, curves, one line."""
    progress, run = trainer.progress, trainer.run
    run.log(progress.step, {name: value for name, value in values.items() if name.startswith("val/")})
    better = progress.best_epoch == epoch
    if better:
        facts = {"settings": vars(settings), "epoch": epoch + 1, "step": progress.step, "metrics": values}
        save_clip(Path(settings.checkpoint_dir) / "best_model.pth", trainer.best_model.model, **facts)
    plot_curves(Path(settings.results_dir) / "training_curves.png", progress.history, CURVES)
    shown = {
        "loss": "train/loss",
        "I2T R@1": "val/i2t_r1",
        "R@5": "val/i2t_r5",
        "T2I R@1": "val/t2i_r1",
        "R@5 ": "val/t2i_r5",
        "RSum": "val/rsum",
        "gap": "val/similarity_gap",
    }
    line = "  ".join(
        f"{label} {values[name]:.{3 if label in ('loss', 'gap') else 1}f}"
        for label, name in shown.items()
        if name in values
    )
    print(f"epoch {epoch + 1}/{settings.num_epochs}  {line}{'  best so far' if better else ''}")


def finish(trainer: Trainer, val_set: PairDataset, settings: Namespace) -> dict[str, Any]:
    """training_results.json, model_metrics.png of the best model, and the last words of a run."""
    progress, folder = trainer.progress, Path(settings.results_dir)
    best = Path(settings.checkpoint_dir) / "best_model.pth"
    results = {
        "epochs": progress.epoch,
        "steps": progress.step,
        "skipped_steps": progress.left_out,
        "best_epoch": progress.best_epoch + 1,
        "best": progress.history[progress.best_epoch],
        "settings": vars(settings),
        "history": progress.history,
    }
    if len(val_set):
        model, _ = load_clip(best, trainer.accelerator.device)
        found = encode_pairs(model, val_set, trainer.accelerator.device, quiet=True)
        given = (*found[:3], same_words(found.texts))
        results["retrieval"] = measure_retrieval(*rank_both_ways(*given), found.image_of_text)
        draw_both(folder / "model_metrics.png", results["retrieval"], similarity_statistics(*given))
    write_json(folder / "training_results.json", results)
    trainer.run.writer.close()
    trainer.report_skipped_steps()
    print(
        f"\nmodel      {best} (epoch {progress.best_epoch + 1})\n"
        f"pictures   {folder / 'training_curves.png'}, {folder / 'model_metrics.png'}\n"
        f"results    {folder / 'training_results.json'}\n"
        f"logs       tensorboard --logdir={settings.log_dir}"
    )
    return results


if __name__ == "__main__":
    run_script(main)
