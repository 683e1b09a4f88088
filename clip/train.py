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
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader

from clip.architectures import canonical_name
from clip.checkpoint import load_clip, save_clip
from clip.dataset import PairDataset
from clip.embed import PairEmbeddings, embed_pairs
from clip.initial_model import MODEL_SETTINGS, build_model, check_settings, is_complete_model, weights_of
from clip.metrics import measure_retrieval
from clip.model import CLIPModel
from clip.report import DIRECTIONS, plot_metrics
from clip.training_data import TrainingData, open_data
from clip.training_model import CLIPTrainingModel, parameter_groups
from common.cli.errors import run_script
from common.cli.failures import batch_hint
from common.cli.paths import find_from_root
from common.cli.settings import read_settings
from common.metrics.retrieval import RECALL_AT, rank_both_ways, retrieval_scores, similarity_statistics
from common.training.device import make_accelerator
from common.training.plots import plot_curves
from common.training.run import Run, choose_run_name
from common.training.schedule import TrainSchedule
from common.training.skip_log import write_skipped
from common.training.trackers import installed_trackers
from common.training.trained_on import check_resume, digest_of, source_name
from common.training.trainer import Trainer

FIXED = (  # settings that a resumed run must repeat
    *("model_name", *MODEL_SETTINGS, "freeze_backbone", "lock_image", "layer_decay", "ema_decay", "loss"),
    *("val_split", "val_data", "cache_format", "seed"),
)
CURVES = {
    "loss": ["train/loss"],
    "recall on validation, % [0, 100]": {
        f"val/{way}_r{k}": f"{title.partition(' ')[2]}, R@{k}" for way, title in DIRECTIONS.items() for k in RECALL_AT
    },
    "mean cosine on validation": {"val/positive_similarity": "true pairs", "val/negative_similarity": "false pairs"},
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
    data = open_data(settings, accelerator)
    set_seed(settings.seed)
    with accelerator.local_main_process_first():  # which downloads the weights
        model = build_model(settings)
    trained_on = describe_run(settings, model, data)
    if settings.resume:
        check_resume(trained_on, Path(settings.checkpoint_dir) / "last", "--resume", bool(accelerator.scaler))
    loader, val_set = data.build(model)
    run = None
    if accelerator.is_main_process:  # the data is valid: an older run may be moved aside now
        folders = (settings.checkpoint_dir, settings.log_dir)
        run = Run(*folders, vars(settings), settings.resume, name, trackers, settings.results_dir, trained_on)
        if not settings.resume:
            write_skipped(run.log_folder / "skipped.jsonl", data.skipped)
    data.set_log_folder(broadcast_object_list([run and run.log_folder])[0])
    trainer = build_trainer(settings, model, loader, accelerator, run)
    trainer.start(settings.resume, settings.seed)
    if run:
        print_summary(data, trainer, settings)

    for _, means in trainer.epochs():
        scores = validate(trainer, val_set) if run and val_set else {}
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


def describe_run(settings: Namespace, model: CLIPModel, data: TrainingData) -> dict[str, Any]:
    """What a resumed run must repeat. Memory alone decides how a batch is divided into accum_batches."""
    return {
        **{name: source_name(getattr(settings, name)) for name in FIXED},
        "batch_size * accum_batches": settings.batch_size * settings.accum_batches,
        "model": digest_of(model.config),
        **data.describe(),
    }


def build_trainer(
    settings: Namespace, model: CLIPModel, loader: DataLoader, accelerator: Accelerator, run: Run | None
) -> Trainer:
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


def print_summary(data: TrainingData, trainer: Trainer, settings: Namespace) -> None:
    trainable = sum(parameter.numel() for parameter in trainer.unwrapped_model.parameters() if parameter.requires_grad)
    weights = "its own" if is_complete_model(settings.model_name) else weights_of(settings) or "random"
    print(
        f"{data.summary(trainer.unwrapped_model.model)}\n"
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


def evaluate_best(trainer: Trainer, val_set: PairDataset | None) -> dict[str, Any]:
    """training_results.json, model_metrics.png of the best model, and the closing lines."""
    run, results = trainer.run, trainer.progress.results()
    plots, command = [run.results / "training_curves.png"], list[str | Path]()
    if val_set:
        model, _ = load_clip(run.folder / BEST, trainer.accelerator.device)
        embeddings = embed(trainer, model, val_set)
        results["retrieval"] = measure_retrieval(*rank_both_ways(*embeddings[:4]), embeddings.image_of_text)
        plot_metrics(run.results / "model_metrics.png", results["retrieval"], similarity_statistics(*embeddings[:4]))
        plots.append(run.results / "model_metrics.png")
        data_dir = run.settings["val_data"] or run.settings["data_dir"]
        command = ["clip/evaluate.py", "--weights", run.folder / BEST, "--data_dir", data_dir]
    written = ", ".join(map(str, plots))
    trainer.finish(results, run.results / "training_results.json", run.folder / BEST, written, EPOCH_LINE, command)
    return results


if __name__ == "__main__":
    run_script(main, batch_hint("clip", "lower --batch_size and raise --accum_batches, which keeps the contrast"))
