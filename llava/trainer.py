"""Hugging Face's Trainer with what LLaVA needs beside it.

a learning rate of the projector's own; batches of like length; validation answers in TensorBoard
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from common.images.io import open_image
from common.training.hf_trainer import FaultTolerantTrainer
from common.training.length_sampler import LengthGroupedSampler
from llava.dataset import ConversationDataset, Sample
from llava.lora import PROJECTOR, part_of
from llava.prefix_cache import ImagePrefixCache
from llava.tokens import ChatFormatter


class LlavaTrainer(FaultTolerantTrainer):
    """projector_learning_rate: 0 for that of the rest."""

    def __init__(self, *arguments, projector_learning_rate: float = 0.0, **options):
        super().__init__(*arguments, file_of=_file_of, **options)
        self.projector_learning_rate = projector_learning_rate

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self.projector_learning_rate:
            named = (self.model if model is None else model).named_parameters()
            projector = {id(parameter) for name, parameter in named if part_of(name) == PROJECTOR}
            for group in list(optimizer.param_groups):
                moved = [one for one in group["params"] if id(one) in projector]
                if moved:
                    group["params"] = [one for one in group["params"] if id(one) not in projector]
                    same = {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
                    optimizer.add_param_group({**same, "params": moved, "lr": self.projector_learning_rate})
        return optimizer

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return self._by_length(self.train_dataset, together)

    def _get_eval_sampler(self, eval_dataset):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_eval_sampler(eval_dataset)
        return self._by_length(eval_dataset, self.args.eval_batch_size)

    def _by_length(self, dataset: ConversationDataset, together: int) -> LengthGroupedSampler:
        """Trainer would look for lengths in the items, and open every image for it."""
        return LengthGroupedSampler([len(sample.ids) for sample in dataset.samples], together, self.args.seed)


class LogPredictionsCallback(TrainerCallback):
    """After each validation: what the model answers to the first questions about some validation images."""

    def __init__(self, samples: list[Sample], formatter: ChatFormatter, folder: Path, max_tokens: int = 64):
        self.samples = [one for one in samples if len(one.conversation.images) == one.conversation.turns[0].images == 1]
        self.formatter, self.folder, self.max_tokens = formatter, folder, max_tokens

    def on_evaluate(self, args, state, control, model=None, **_) -> None:
        if not state.is_world_process_zero or not self.samples:
            return
        was_training = model.training
        model.eval()
        images = [open_image(sample.conversation.images[0]) for sample in self.samples]
        turns = [sample.conversation.turns[0] for sample in self.samples]
        half = torch.float16 if args.fp16 else torch.bfloat16
        # What learns is fp32 beside a base in half: outside of training's autocast the two would not fit together.
        with torch.autocast(args.device.type, half, enabled=args.bf16 or args.fp16):
            shared = ImagePrefixCache(model, self.formatter, images)
            rests = [shared.rest(self.formatter.prompt(turn.question)) for turn in turns]
            answers = shared.generate(list(range(len(images))), rests, self.max_tokens)
        model.train(was_training)
        with SummaryWriter(str(self.folder)) as writer:
            for number, (image, turn, ids) in enumerate(zip(images, turns, answers)):
                words = self.formatter.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
                text = f"**{turn.question}**\n\nmodel: {words}\n\nreference: {turn.answer}"
                writer.add_text(f"validation/{number}", text, state.global_step)
                writer.add_image(f"validation/{number}", _thumbnail(image), state.global_step, dataformats="HWC")


def _file_of(item: tuple[Sample, list[Image.Image]]) -> str:
    conversation = item[0].conversation
    return " ".join([conversation.key, *map(str, conversation.images)])


def _thumbnail(image: Image.Image, side: int = 256) -> np.ndarray:
    """-> (H, W, 3) uint8, at most `side` pixels a side."""
    small = image.copy()
    small.thumbnail((side, side))
    return np.asarray(small)
