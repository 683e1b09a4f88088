"""Trainer of ViTP: exact resume of the token masking, and checkpoints that are loaded strictly."""

from pathlib import Path

import torch

from common.models.checkpoint_file import read_tensors
from common.text.files import write_atomically
from common.training.hf_trainer import FaultTolerantTrainer


class InstructionTrainer(FaultTolerantTrainer):
    """The generator of the model's masking is saved and restored with the other random states of each process."""

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.model.masking is not None:
            with write_atomically(self._masking_state(output_dir)) as file:
                torch.save(self.model.masking.generator.get_state(), file)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self.model.masking is not None:
            self.model.masking.generator.set_state(read_tensors(self._masking_state(checkpoint)))

    def _masking_state(self, folder: str) -> Path:
        return Path(folder) / f"token_masking_{self.args.process_index}.pt"

    def _issue_warnings_after_load(self, load_result) -> None:
        """An error where Trainer only warns: the run would continue with some weights from its start."""
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        differing = [*(set(load_result.missing_keys) - tied), *load_result.unexpected_keys]
        if differing:
            raise ValueError(
                f"the checkpoint is not of this model: {len(differing)} tensors differ, such as {differing[0]}"
            )
