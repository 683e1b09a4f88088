"""Hugging Face's Trainer, and what it lacks for ViTP: exact resume of the token masking, checkpoints that are loaded
strictly, batches of like length in an order that can be resumed, and this repository's logs.
"""

from pathlib import Path

import torch

from common.models.checkpoint_file import read_tensors
from common.text.files import write_atomically
from common.training.hf_trainer import FaultTolerantTrainer
from vitp.dataset import Sample
from vitp.token_masking import TokenMasking


class InstructionTrainer(FaultTolerantTrainer):
    """masking: the model's, whose generator is saved and restored with the other random states of each process."""

    def __init__(self, *arguments, masking: TokenMasking | None = None, **named):
        super().__init__(*arguments, file_of=_file_of, **named)
        self.masking = masking

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


def _file_of(sample: Sample) -> str:
    return sample["where"]
