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

import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from clip.architectures import canonical_name
from clip.checkpoint import load_clip, save_clip
from clip.dataset import PairDataset, find_data, find_pairs, split_pairs
from clip.embed import PairEmbeddings, embed_pairs
from clip.initial_model import MODEL_SETTINGS, build_model, check_settings, is_complete_model, weights_of
from clip.metrics import measure_retrieval
from clip.model import CLIPModel
from clip.pair_files import Columns
from clip.pair_table import PairTable
from clip.report import plot_metrics
from clip.tokenizer import encode_texts
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
from common.training.skip_log import SkipLog, check_skip_rate, report_skipped, write_skipped
from common.training.trackers import installed_trackers
from common.training.trained_on import check_resume, digest_of, source_name
from common.training.trainer import Trainer

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
SAMPLED = 10_000  # texts that tell the share of truncated ones at the start


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
    skip_log = SkipLog(limit=settings.max_skipped, quiet=False)
    train_set, val_set, skipped = build_datasets(settings, pairs, skipped, model, accelerator, skip_log)
    run = None
    if accelerator.is_main_process:  # the data is valid: an older run may be moved aside now
        folders = (settings.checkpoint_dir, settings.log_dir)
        run = Run(*folders, vars(settings), settings.resume, name, trackers, settings.results_dir, trained_on)
        if not settings.resume:
            write_skipped(run.log_folder / "skipped.jsonl", skipped)
    skip_log.path = broadcast_object_list([run and run.log_folder / "skipped.jsonl"])[0]
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


def describe_run(settings: Namespace, model: CLIPModel, pairs: PairTable) -> dict[str, Any]:
    """What a resumed run must repeat. Memory alone decides how a batch is divided into accum_batches."""
    return {
        **{name: source_name(getattr(settings, name)) for name in FIXED},
        "batch_size * accum_batches": settings.batch_size * settings.accum_batches,
        "model": digest_of(model.config),
        "pairs": pairs.describe(),
    }


def build_datasets(
    settings: Namespace,
    pairs: PairTable,
    skipped: dict[str, str],
    model: CLIPModel,
    accelerator: Accelerator,
    skip_log: SkipLog,
) -> tuple[PairDataset, PairDataset, dict[str, str]]:
    """Check a few images, split the others -> training set, validation set, {skipped: reason}.

    skip_log: gets the images that turn out to be unreadable later, when they are first read.
    """
    size, quiet = round(CACHE_SCALE * model.image_size), not accelerator.is_main_process
    cache_dir = settings.cache_dir if settings.cache_images else None
    images = ImageCache(size, cache_dir, settings.cache_gb, settings.data_dir, quiet)
    with accelerator.main_process_first():  # the others read what the first has decoded
        unreadable = images.check(pairs.images)
    total = len(pairs) + len(skipped)
    skipped = skipped | unreadable
    if accelerator.is_main_process:
        report_skipped(skipped)
    check_skip_rate(skipped, total, settings.max_skipped, settings.data_dir)
    train, val = split_pairs(pairs.without(unreadable), settings.val_split, settings.seed)
    augmentation = Augmentation(settings.crop_scale, settings.flip_prob, settings.seed)
    shared = images, model.preprocess, model.tokenizer
    train_set = PairDataset(train, *shared, augmentation, skip_log)
    return train_set, PairDataset(val, *shared, skipped=skip_log), skipped


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
    tokenizer = trainer.unwrapped_model.model.tokenizer
    texts = pa.concat_arrays([train_set.pairs.unique_texts(), val_set.pairs.unique_texts()])
    counted = texts[:: -(-len(texts) // SAMPLED)].to_pylist()
    truncated = encode_texts(tokenizer, counted).truncated
    sample = f" of {len(counted)} sampled ones" * (len(counted) < len(texts))
    weights = "its own" if is_complete_model(settings.model_name) else weights_of(settings) or "random"
    print(
        f"{len(train_set)} images to train on, {len(val_set)} to validate; {len(texts)} unique texts, "
        f"{truncated}{sample} ({truncated / len(counted):.1%}) truncated to {tokenizer.context_length} tokens\n"
        f"{settings.model_name}, weights: {weights}; {trainable / 1e6:.1f} million trainable parameters; "
        f"{trainer.steps_per_epoch} steps per epoch of {trainer.batch_sampler.batch_size} pairs; "
        f"logs in {trainer.run.log_folder}"
    )


def validate(trainer: Trainer, val_set: PairDataset) -> dict[str, float]:
    """-> retrieval scores and similarity statistics of the validation set."""
    return retrieval_scores(*embed(trainer, trainer.eval_model.model, val_set)[:4])


def embed(trainer: Trainer, model: CLIPModel, val_set: PairDataset) -> PairEmbeddings:
    device, num_workers = trainer.accelerator.device, trainer.loader.num_workers
    return embed_pairs(model, val_set, device, quiet=True, num_workers=num_workers)


def evaluate_best(trainer: Trainer, val_set: PairDataset) -> dict[str, Any]:
    """training_results.json, model_metrics.png of the best model, and the closing lines."""
    run, results = trainer.run, trainer.progress.results()
    if len(val_set):
        model, _ = load_clip(run.folder / BEST, trainer.accelerator.device)
        embeddings = embed(trainer, model, val_set)
        results["retrieval"] = measure_retrieval(*rank_both_ways(*embeddings[:4]), embeddings.image_of_text)
        plot_metrics(run.results / "model_metrics.png", results["retrieval"], similarity_statistics(*embeddings[:4]))
    plots = f"{run.results / 'training_curves.png'}, {run.results / 'model_metrics.png'}"
    command = ["clip/evaluate.py", "--weights", run.folder / BEST, "--data_dir", run.settings["data_dir"]]
    trainer.finish(results, run.results / "training_results.json", run.folder / BEST, plots, EPOCH_LINE, command)
    return results


if __name__ == "__main__":
    run_script(main, batch_hint("clip", "lower --batch_size and raise --accum_batches, which keeps the contrast"))
