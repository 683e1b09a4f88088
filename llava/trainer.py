"""Hugging Face's Trainer for LLaVA.

a separate learning rate of the projector; logits at labelled tokens only; batches of similar length; validation
predictions in TensorBoard
"""

import sys

import torch
import torch.nn.functional as F
from peft import PeftModel
from torchvision.transforms.functional import pil_to_tensor
from transformers import PreTrainedModel, TrainerCallback
from transformers.core_model_loading import revert_weight_conversion

from common.images.io import open_image
from common.models.eval_mode import eval_mode
from common.models.lora import PROJECTOR
from common.text.chat_labels import IGNORED
from common.training.hf_trainer import FaultTolerantTrainer
from common.training.length_sampler import LengthGroupedSampler
from common.training.run import Run
from llava.dataset import ConversationDataset, Item, question_text
from llava.prefix_cache import cache_images
from llava.style_tower import save_style_encoder
from llava.tokens import ChatFormatter

THUMBNAIL = 256  # pixels of its longer side, at most


class LlavaTrainer(FaultTolerantTrainer):
    """projector_learning_rate: 0 for that of the other parameters."""

    def __init__(self, model, args, *, projector_learning_rate: float = 0.0, **options):
        super().__init__(
            model,
            args,
            file_of=_files_of,
            group_by_length=args.train_sampling_strategy == "group_by_length",
            learning_rates={PROJECTOR: projector_learning_rate},
            **options,
        )
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        if base is model:
            model.register_load_state_dict_pre_hook(_rename_published)
        self.keeps_labelled = hasattr(sys.modules[type(base).__module__], "slice_logits_to_keep")  # of any tokens

    def compute_loss(self, model, inputs, *arguments, **named):
        """Logits at labelled tokens only: images are most of a sequence, and a vocabulary is wide."""
        if self.keeps_labelled and self.args.prediction_loss_only and not self.args.label_smoothing_factor:
            targets = F.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
            labelled = targets != IGNORED
            inputs = {**inputs, "logits_to_keep": labelled, "shift_labels": targets[labelled]}
        return super().compute_loss(model, inputs, *arguments, **named)

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_style_encoder(self.model, output_dir or self.args.output_dir)

    def _get_eval_sampler(self, eval_dataset):
        if not self.group_by_length:
            return super()._get_eval_sampler(eval_dataset)
        return LengthGroupedSampler(eval_dataset.lengths(), self.args.eval_batch_size, self.args.seed)


class LogPredictionsCallback(TrainerCallback):
    """After each evaluation: the model's answers to the first questions about some validation images."""

    def __init__(
        self, dataset: ConversationDataset, count: int, formatter: ChatFormatter, run: Run, max_tokens: int = 64
    ):
        items = filter(None, map(dataset.read, range(min(count, len(dataset)))))
        conversations = [sample.conversation for sample, _ in items]
        self.conversations = [one for one in conversations if len(one.images) == one.turns[0].images == 1]
        self.formatter, self.run, self.max_tokens = formatter, run, max_tokens

    def on_evaluate(self, args, state, control, model=None, **_) -> None:
        if not self.conversations:
            return
        images = [open_image(conversation.images[0]) for conversation in self.conversations]
        questions = [question_text(conversation.turns[0]) for conversation in self.conversations]
        half = torch.float16 if args.fp16 else torch.bfloat16
        # Trainable weights are fp32 on a base in half precision; only under autocast do the two fit together.
        with eval_mode(model), torch.autocast(args.device.type, half, enabled=args.bf16 or args.fp16):
            cache = cache_images(model, self.formatter, images)
            rests = [cache.rest(self.formatter.prompt(question)) for question in questions]
            answers = cache.generate(list(range(len(images))), rests, self.max_tokens)
        samples = zip(self.conversations, questions, images, answers)
        for number, (conversation, question, image, ids) in enumerate(samples):
            answer = self.formatter.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            text = f"**{question}**\n\nmodel: {answer}\n\nreference: {conversation.turns[0].answer}"
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            self.run.writer.add_text(f"validation/{number}", text, state.global_step)
            self.run.writer.add_image(f"validation/{number}", pil_to_tensor(image), state.global_step)
        self.run.writer.flush()


def _rename_published(model: PreTrainedModel, state_dict: dict[str, torch.Tensor], *_) -> None:
    """Trainer resumes by load_state_dict, which expects the model's names; save_pretrained writes published ones."""
    own = model.state_dict()
    names = {id(value): name for name, value in own.items()}
    for published, value in revert_weight_conversion(model, own).items():
        if published in state_dict and (name := names.get(id(value))):
            state_dict[name] = state_dict.pop(published)


def _files_of(item: Item) -> str:
    conversation = item[0].conversation
    return " ".join([conversation.key, *map(str, conversation.images)])
