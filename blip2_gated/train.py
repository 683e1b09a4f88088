"""Train BLIP2-gated: answers to questions about images, with style gates in the Q-Former's cross-attention.

python blip2_gated/train.py                           tables in data/vqa, or else ArtQuest's; all settings are flags
python blip2_gated/train.py --config artquest         configs/default.yaml, then configs/artquest.yaml
python blip2_gated/train.py --demo                    drawn pictures and a small BLIP-2, minutes on a CPU
python blip2_gated/train.py --training.save_last      also write last/, from which --training.resume continues
torchrun --nproc_per_node 2 blip2_gated/train.py      several GPUs; accelerate launch works too
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from blip2_gated import config
from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__, config)

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader

from blip2_gated.backbone import is_config
from blip2_gated.checkpoint import build_arguments, load_gated, save_gated, store_frozen
from blip2_gated.dataset import DEFAULT_ROOT, VqaDataset, VqaSample, build_datasets, read_splits
from blip2_gated.metrics import QuestionOnlyBaseline, answer_samples, measure_answers
from blip2_gated.model import Blip2OPTGated
from blip2_gated.training_model import GatedTrainingModel, measure_loss
from blip2_gated.warm_start import pretrain_language, pretrain_vision
from common.cli.errors import run_script
from common.cli.failures import batch_hint
from common.cli.paths import find_from_root
from common.cli.settings import read_settings
from common.samples.sample_folder import is_vacant
from common.training.device import make_accelerator
from common.training.loader import make_loader
from common.training.plots import plot_curves
from common.training.run import Run, choose_run_name
from common.training.samplers import DeterministicBatchSampler
from common.training.schedule import TrainSchedule
from common.training.skip_log import SkipLog, write_skipped
from common.training.trackers import installed_trackers
from common.training.trained_on import check_resume, describe_samples, describe_tensors, file_size, source_name
from common.training.trainer import Trainer

FIXED = (  # settings that a resumed run must repeat
    *("data.prompt", "data.max_tokens", "data.cache_format", "model.blip2", "model.train"),
    *("model.efficientnet.name", "model.efficientnet.image_size", "model.efficientnet.output_dim"),
    *("model.gating.type", "model.gating.per_head", "model.prompt_mapper.num_tokens", "model.prompt_mapper.hidden"),
    *("model.lora.enabled", "model.lora.rank", "model.lora.alpha"),
    *("training.batch_size", "training.accumulation", "training.seed"),
)
CURVES = {
    "loss on answers": ["train/main", "val/main"],
    "1 - P(a style is named)": ["train/style_hit", "val/style_hit"],
    "KL of styles, image and text": ["train/consistency", "val/consistency"],
    "style head's loss": ["train/style_head", "val/style_head"],
    "learning rate": ["train/learning_rate"],
}
EPOCH_LINE = {
    "train/loss": "loss {:.3f}",
    "train/main": "main {:.3f}",
    "val/main": "val main {:.3f}",
    "val/style_hit": "val style hit {:.3f}",
    "val/consistency": "val KL {:.3f}",
}
BEST = "best.pt"


def main(argv: list[str]) -> dict[str, Any]:
    settings = choose_settings(argv)
    check_settings(settings)
    trackers = installed_trackers(settings.training_report_to)
    name = choose_run_name(settings.training_run_name, "blip2_gated", settings.model_blip2)
    accelerator = make_accelerator(settings.training_device, settings.training_precision)
    with accelerator.main_process_first():
        splits, skipped = read_splits(settings, ("train", "val"), accelerator.is_main_process)
    set_seed(settings.training_seed)
    build = build_arguments(settings, splits["train"])
    model = Blip2OPTGated.from_build(build)
    trained_on = describe_run(settings, model, splits["train"])
    if settings.training_resume:
        state = Path(settings.training_checkpoint_dir) / "last"
        check_resume(trained_on, state, "--training.resume", bool(accelerator.scaler))
    store_frozen(model, settings.model_frozen_dtype, accelerator.device)
    with accelerator.main_process_first():  # the others read the caches that the first has written
        sets, skipped = build_datasets(settings, splits, skipped, model, accelerator)
    run = None
    if accelerator.is_main_process:  # the data is valid by now, so an older run may be moved
        folders = (settings.training_checkpoint_dir, settings.training_log_dir)
        run = Run(*folders, vars(settings), settings.training_resume, name, trackers, trained_on=trained_on)
        write_skipped(run.log_folder / "skipped.jsonl", skipped)
    log_folder = broadcast_object_list([run and run.log_folder])[0]
    log = SkipLog(log_folder / "skipped.jsonl", settings.data_max_skipped, quiet=False)
    sets["train"].skipped = sets["val"].skipped = log
    if settings.training_warm_start_steps and is_config(settings.model_blip2) and not settings.training_resume:
        warm_start(settings, model.to(accelerator.device), sets["train"], accelerator.is_main_process)
    trainer = build_trainer(settings, model, sets["train"], accelerator, run)
    trainer.start(settings.training_resume, settings.training_seed)
    first_epoch = trainer.progress.epoch
    if run:
        print_summary(settings.data_root, sets, trainer)

    for epoch, means in trainer.epochs():
        if run and epoch == first_epoch:
            sets["val"].drop_broken()
        scores = validate(trainer, sets["val"], settings.training_batch_size) if run else {}
        values = trainer.record_epoch(means, scores, "main", maximize=False)  # the other losses are regularisers
        if run:
            if trainer.progress.is_best:
                save_gated(
                    run.folder / BEST, trainer.unwrapped_model.model, build, **trainer.checkpoint_metadata(values)
                )
            plot_curves(run.folder / "training_curves.png", trainer.progress.history, CURVES)
            trainer.print_epoch(values, EPOCH_LINE)
    results = save_results(trainer, sets, settings.training_eval_samples) if run else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def choose_settings(argv: list[str]) -> Namespace:
    """Settings of a run. If nothing says what to read and the default folder has nothing, those of ArtQuest."""
    settings = read_settings(config, argv, __doc__)
    has_config = any(word.partition("=")[0] == "--config" for word in argv)
    if settings.demo or has_config or settings.data_root != DEFAULT_ROOT or not is_vacant(find_from_root(DEFAULT_ROOT)):
        return settings
    artquest_argv = ["--config", "artquest", *argv]
    artquest = read_settings(config, artquest_argv, quiet=True)
    if is_vacant(find_from_root(artquest.data_root)):
        raise FileNotFoundError(
            f"no training data: neither {settings.data_root}/{settings.data_train_csv} (--data.root for another folder)"
            f" nor ArtQuest's {artquest.data_root}/{artquest.data_train_csv}; --demo draws pictures to try it with"
        )
    return read_settings(config, artquest_argv)


def check_settings(settings: Namespace) -> None:
    """Combinations that the types of the settings cannot exclude."""
    trained = settings.model_train
    if not settings.data_answer_column:
        raise ValueError("--data.answer_column: none, but training needs answers; evaluate.py does without")
    if is_config(settings.model_blip2) and trained != "all":
        raise ValueError(
            f"--model.train {trained}: {settings.model_blip2} is built from scratch with random weights; "
            "use --model.train all, or a --model.blip2 with weights"
        )
    if settings.training_cache_features and trained == "all" and settings.model_gating_type == "none":
        raise ValueError("--training.cache_features: --model.train all without gates leaves no tower frozen")
    if trained == "gates" and settings.model_gating_type == "none" and not settings.model_lora_enabled:
        raise ValueError("--model.gating.type none: without gates and without LoRA nothing would be trainable")
    if settings.training_resume and not settings.training_save_last:
        raise ValueError("--training.resume: continues from last/, which only --training.save_last writes; give both")


def describe_run(settings: Namespace, model: Blip2OPTGated, samples: Sequence[VqaSample]) -> dict[str, Any]:
    """What a resumed run must repeat."""
    return {
        **{name: source_name(getattr(settings, name.replace(".", "_"))) for name in FIXED},
        "model": describe_tensors(model.state_dict()),
        "weights of BLIP-2 and EfficientNet": model.fingerprint,
        "data": describe_samples(
            (sample.image, file_size(sample.path), sample.question, sample.answer, sample.style) for sample in samples
        ),
    }


def warm_start(settings: Namespace, model: Blip2OPTGated, train_set: VqaDataset, is_main: bool) -> None:
    """Every device does the same, so that nothing has to be sent."""
    steps, batch_size = settings.training_warm_start_steps, settings.training_batch_size
    for target, pretrain in (("words of images", pretrain_vision), ("answers", pretrain_language)):
        first, last = pretrain(model, train_set, steps, batch_size, settings.training_seed, quiet=not is_main)
        if is_main:
            print(f"warm start: loss over {target} {first:.3f} -> {last:.3f}")


def build_trainer(
    settings: Namespace, model: Blip2OPTGated, train_set: VqaDataset, accelerator: Accelerator, run: Run | None
) -> Trainer:
    batches = DeterministicBatchSampler(
        len(train_set),
        settings.training_batch_size,
        settings.training_seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = make_loader(train_set, batches, accelerator.device, settings.data_num_workers, train_set.collate)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [tensor for tensor in trainable if tensor.ndim > 1], "weight_decay": settings.training_weight_decay},
        {"params": [tensor for tensor in trainable if tensor.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.training_learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = TrainSchedule(
        settings.training_epochs,
        settings.training_learning_rate,
        settings.training_min_learning_rate,
        settings.training_warmup_steps,
        settings.training_clip_norm,
        settings.training_accumulation,
        settings.training_log_steps,
        settings.training_save_steps,
        settings.training_max_nonfinite_steps,
    )
    return Trainer(
        accelerator,
        make_training_model(settings, model),
        optimizer,
        loader,
        schedule,
        run,
        state_dir=Path(settings.training_checkpoint_dir) / "last" if settings.training_save_last else None,
        resume_flag="--training.resume",
    )


def make_training_model(settings: Namespace, model: Blip2OPTGated) -> GatedTrainingModel:
    weights = {name: getattr(settings, f"loss_{name}") for name in ("main", "style_hit", "consistency", "style_head")}
    return GatedTrainingModel(model, weights, settings.loss_detach_image)


def print_summary(data_root: str, sets: dict[str, VqaDataset], trainer: Trainer) -> None:
    model, train_set = trainer.unwrapped_model.model, sets["train"]
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters()) - trainable
    print(
        f"{len(train_set)} training questions about {len({sample.path for sample in train_set.samples})} images, "
        f"{len(sets['val'])} validation questions, from {data_root}; "
        f"{train_set.count_truncated()} have texts longer than {model.prompts.max_tokens} tokens, which are truncated\n"
        f"{trainable / 1e6:.2f} million trainable parameters, {frozen / 1e6:.2f} million frozen; "
        f"{trainer.steps_per_epoch} steps per epoch; logs in {trainer.run.log_folder}"
    )
    if skipped := model.styles.labels_without_tokens:
        print(f"styles without a token of their own, skipped in style losses: {', '.join(skipped)}")


def validate(trainer: Trainer, val_set: VqaDataset, batch_size: int) -> dict[str, float]:
    """-> losses over the validation set."""
    loader = DataLoader(val_set, batch_size, collate_fn=val_set.collate, generator=torch.Generator())
    return measure_loss(trainer.unwrapped_model, loader, trainer.accelerator.device)


def save_results(trainer: Trainer, sets: dict[str, VqaDataset], eval_samples: int) -> dict[str, Any]:
    """results.json with the scores of the best model's answers, and the closing lines."""
    run, results = trainer.run, trainer.progress.results()
    if eval_samples:
        model, _ = load_gated(run.folder / BEST, trainer.accelerator.device)
        predictions = answer_samples(model, sets["val"], eval_samples, quiet=False, num_beams=1)
        results["answers"] = measure_answers(predictions, model.styles, QuestionOnlyBaseline(sets["train"].samples))
        for question_type, scores in {"all": results["answers"]["all"], **results["answers"]["by_type"]}.items():
            print(
                f"correct answers, {question_type:12} {scores['vqa_accuracy']:5.1f} % of {scores['questions']}, "
                f"question-only baseline {scores['question_only']:.1f} %"
            )
    plots, model_file = f"{run.folder / 'training_curves.png'}", run.folder / BEST
    command = ["blip2_gated/evaluate.py", "--checkpoint", model_file]
    trainer.finish(results, run.folder / "results.json", model_file, plots, EPOCH_LINE, command)
    return results


if __name__ == "__main__":
    run_script(main, batch_hint("blip2", "lower --training.batch_size and raise --training.accumulation"))
