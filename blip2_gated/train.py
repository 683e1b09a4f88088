"""Train BLIP2-gated: answers to questions about images, with a style expert at the Q-Former's cross-attention.

python blip2_gated/train.py --config artquest         configs/default.yaml, configs/artquest.yaml on top; all are flags
python blip2_gated/train.py --demo                    drawn pictures and a small BLIP-2, minutes on a CPU
python blip2_gated/train.py --training.save_last      keep last/ too; then --training.resume goes on after a stop
torchrun --nproc_per_node 2 blip2_gated/train.py      several GPUs; accelerate launch works too
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from blip2_gated import config
from blip2_gated.backbone import is_config
from blip2_gated.checkpoint import build_gated, load_gated, make_recipe, save_gated, store_frozen
from blip2_gated.data import prepare_data, read_splits
from blip2_gated.dataset import Sample, VqaDataset
from blip2_gated.generate_answers import answer_samples
from blip2_gated.metrics import QuestionOnlyBaseline, measure_answers
from blip2_gated.model import TRAINED, Blip2OPTGated
from blip2_gated.training_model import GatedTrainingModel, measure_loss
from blip2_gated.warm_start import learn_to_read, learn_to_see
from common.cli.errors import run_script
from common.cli.settings import read_settings
from common.training.device import make_accelerator
from common.training.loader import make_loader
from common.training.plots import plot_curves
from common.training.run import Run
from common.training.samplers import DeterministicBatchSampler
from common.training.schedule import TrainSchedule
from common.training.skip_log import write_skipped
from common.training.trainer import Trainer

CURVES = {
    "loss on answers": ["train/main", "val/main"],
    "1 - P(a style is named)": ["train/style_hit", "val/style_hit"],
    "KL of styles, image and text": ["train/consistency", "val/consistency"],
    "style head's loss": ["train/style_head", "val/style_head"],
    "learning rate": ["train/learning_rate"],
}

EPOCH_LINE = {
    "loss": "train/loss",
    "main": "train/main",
    "val main": "val/main",
    "val style hit": "val/style_hit",
    "val KL": "val/consistency",
}
BEST = "best.pt"


def main(argv: list[str]) -> dict[str, Any]:
    settings = read_settings(config, argv, __doc__)
    check(settings)
    accelerator = make_accelerator(settings.training_device, settings.training_precision)
    with accelerator.main_process_first():
        splits, skipped = read_splits(settings, ("train", "val"), accelerator.is_main_process)
    set_seed(settings.training_seed)
    recipe = recipe_of(settings, splits["train"])
    model = build_gated(recipe)
    store_frozen(model, settings.model_frozen_dtype, accelerator.device)
    with accelerator.main_process_first():  # the others find what the first has written
        sets, skipped = prepare_data(settings, splits, skipped, model, accelerator)
    run = None
    if accelerator.is_main_process:  # from here on the data is known to be good, and an older run may be moved aside
        run = Run(settings.training_checkpoint_dir, settings.training_log_dir, vars(settings), settings.training_resume)
        write_skipped(run.log_folder / "skipped.jsonl", skipped)
    if settings.training_warm_start_steps and is_config(settings.model_blip2) and not settings.training_resume:
        begin(settings, model.to(accelerator.device), sets["train"], accelerator.is_main_process)
    trainer = build_trainer(settings, model, sets["train"], accelerator, run)
    trainer.start(settings.training_resume, settings.training_seed)
    if run:
        describe(sets, trainer)

    for _, means in trainer.epochs():
        scores = validate(trainer, sets["val"], settings.training_batch_size) if run else {}
        values = trainer.record_epoch(means, scores, "main", maximize=False)  # the other losses are means to an end
        if run:
            if trainer.progress.is_best:
                metadata = trainer.checkpoint_metadata(values)
                save_gated(run.folder / BEST, trainer.unwrapped_model.model, recipe, **metadata)
            plot_curves(run.folder / "training_curves.png", trainer.progress.history, CURVES)
            trainer.print_epoch(values, EPOCH_LINE)
    results = finish(trainer, sets, settings.training_eval_samples) if run else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def check(settings: Namespace) -> None:
    """What the types of the settings cannot say."""
    for name in ("batch_size", "epochs", "accumulation", "save_steps", "log_steps"):
        if getattr(settings, f"training_{name}") < 1:
            raise ValueError(f"--training.{name} {getattr(settings, f'training_{name}')}: expected 1 or more")
    if settings.model_train not in TRAINED:
        raise ValueError(f"--model.train {settings.model_train}: expected {', '.join(TRAINED)}")
    if is_config(settings.model_blip2) and settings.model_train != "all":
        raise ValueError(
            f"--model.train {settings.model_train}: {settings.model_blip2} is built from scratch and knows nothing; "
            "train all of it, or name one with weights"
        )
    if settings.training_cache_features and settings.model_train == "all":
        raise ValueError("--training.cache_features: with --model.train all the vision tower learns; leave one out")
    if settings.model_train == "gates" and settings.model_gating_type == "none" and not settings.model_lora_enabled:
        raise ValueError("--model.gating.type none: without gates and without LoRA nothing would learn")
    if settings.training_resume and not settings.training_save_last:
        raise ValueError("--training.resume: goes on from last/, which only --training.save_last keeps; give both")


def recipe_of(settings: Namespace, samples: list[Sample]) -> dict[str, Any]:
    """Styles and, where BLIP-2 is built from scratch, words are those of the training set."""
    texts = [f"{settings.data_prompt.format(one.question)} {one.answer}\n" for one in samples]
    labels = [one.style for one in samples if one.style]
    return make_recipe(settings, labels, texts, [one.answer for one in samples])


def begin(settings: Namespace, model: Blip2OPTGated, train_set: VqaDataset, is_main: bool) -> None:
    """A model from scratch sees, then reads. Every device does the same, so that nothing has to be sent."""
    for what, learn in (("words of images", learn_to_see), ("answers", learn_to_read)):
        first, last = learn(
            model,
            train_set,
            settings.training_warm_start_steps,
            settings.training_batch_size,
            settings.training_seed,
            quiet=not is_main,
        )
        if is_main:
            print(f"beginning: loss over {what} {first:.3f} -> {last:.3f}")


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
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in learning if one.ndim > 1], "weight_decay": settings.training_weight_decay},
        {"params": [one for one in learning if one.ndim <= 1], "weight_decay": 0.0},
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
    last = Path(settings.training_checkpoint_dir) / "last" if settings.training_save_last else None
    return Trainer(accelerator, learner_of(settings, model), optimizer, loader, schedule, run, last)


def learner_of(settings: Namespace, model: Blip2OPTGated) -> GatedTrainingModel:
    weights = {name: getattr(settings, f"loss_{name}") for name in ("main", "style_hit", "consistency", "style_head")}
    return GatedTrainingModel(model, weights, settings.loss_detach_image)


def describe(sets: dict[str, VqaDataset], trainer: Trainer) -> None:
    model: Blip2OPTGated = trainer.unwrapped_model.model
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters()) - learning
    train_set = sets["train"]
    images = len({sample.image for sample in train_set.samples})
    print(
        f"{len(train_set)} questions about {images} images to train on, {len(sets['val'])} to "
        f"validate; {train_set.cut} texts longer than {model.prompts.max_tokens} tokens and cut\n"
        f"{learning / 1e6:.2f} million parameters learn, {frozen / 1e6:.2f} million stand still; "
        f"{trainer.steps_per_epoch} steps per epoch; logs in {trainer.run.log_folder}"
    )
    if model.styles.without:
        print(f"styles without a token of their own, left out of style losses: {', '.join(model.styles.without)}")


def validate(trainer: Trainer, val_set: VqaDataset, batch_size: int) -> dict[str, float]:
    """-> losses over the validation set."""
    loader = DataLoader(val_set, batch_size, collate_fn=val_set.collate, generator=torch.Generator())
    return measure_loss(trainer.unwrapped_model, loader, trainer.accelerator.device)


def finish(trainer: Trainer, sets: dict[str, VqaDataset], eval_samples: int) -> dict[str, Any]:
    """results.json with the answers of the best model, and the closing lines."""
    run, results = trainer.run, trainer.progress.results()
    if eval_samples:
        model, _ = load_gated(run.folder / BEST, trainer.accelerator.device)
        answered = answer_samples(model, sets["val"], eval_samples, quiet=False, num_beams=1)
        results["answers"] = measure_answers(answered, model.styles, QuestionOnlyBaseline(sets["train"].samples))
        for kind, scores in {"all": results["answers"]["all"], **results["answers"]["by_type"]}.items():
            print(
                f"right answers, {kind:12} {scores['vqa_accuracy']:5.1f} % of {scores['questions']}, "
                f"question-only baseline {scores['blind']:.1f} %"
            )
    plots = f"{run.folder / 'training_curves.png'}"
    trainer.finish(results, run.folder / "results.json", run.folder / BEST, plots)
    return results


if __name__ == "__main__":
    run_script(main)
