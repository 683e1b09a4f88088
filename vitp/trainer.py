"""Hugging Face's Trainer, and what it lacks for ViTP: exact resume of the token masking, checkpoints that are loaded
strictly, batches of like length in an order that can be resumed, and this repository's logs.
"""

from pathlib import Path

import torch
from transformers import TrainerCallback

from common.models.checkpoint_file import read_tensors
from common.text.files import write_atomically
from common.training.hf_trainer import FaultTolerantTrainer
from common.training.length_sampler import LengthGroupedSampler
from common.training.run import Run
from vitp.dataset import Sample
from vitp.token_masking import TokenMasking


class InstructionTrainer(FaultTolerantTrainer):
    """masking: the model's, whose generator is saved and restored with the other random states of each process."""

    def __init__(self, *arguments, masking: TokenMasking | None = None, group_by_length: bool = False, **named):
        super().__init__(*arguments, file_of=_file_of, **named)
        self.masking, self.group_by_length = masking, group_by_length
        self.add_callback(_Epochs(self))

    def _get_train_sampler(self, train_dataset=None):
        if not self.group_by_length:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler([length or 0 for length in dataset.lengths()], together, self.args.seed)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.masking is not None:
            with write_atomically(self._masking_state(output_dir)) as file:
                torch.save(self.masking.generator.get_state(), file)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self.masking is not None:
            self.masking.generator.set_state(read_tensors(self._masking_state(checkpoint)))

    def _masking_state(self, folder: str) -> Path:
        return Path(folder) / f"token_masking_{self.args.process_index}.pt"

    def _issue_warnings_after_load(self, load_result) -> None:
        """What Trainer only warns of: a run that went on with some weights from its start."""
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        wrong = [*(set(load_result.missing_keys) - tied), *load_result.unexpected_keys]
        if wrong:
            raise ValueError(f"the checkpoint is not of this model: {len(wrong)} tensors differ, such as {wrong[0]}")


class RunLog(TrainerCallback):
    """Trainer's entries into the run's log.jsonl and TensorBoard. None: not the main process."""

    def __init__(self, run: Run | None):
        self.run = run

    def on_train_begin(self, args, state, control, **_) -> None:
        if self.run is not None:
            self.run.start_logging(state.global_step)

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if self.run is not None and logs:
            numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
            self.run.log(state.global_step, {_under(name): value for name, value in numbers.items()})

    def on_train_end(self, args, state, control, **_) -> None:
        if self.run is not None and self.run.writer is not None:
            self.run.writer.flush()


class _Epochs(TrainerCallback):
    """Tells the data the epoch; accelerate does not, under a batch sampler."""

    def __init__(self, trainer: InstructionTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **_) -> None:
        self.trainer.train_dataset.set_epoch(int(state.epoch or 0))


def _file_of(sample: Sample) -> str:
    return sample["where"]


def _under(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name.removeprefix('train_')}"
