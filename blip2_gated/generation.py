"""Texts about images: captions, answers to questions, the most probable of given answers.

images, questions (N each) -> N texts

LAVIS's calls of its BLIP-2 work, too, with its names of samples and options:

    model.predict_answers(samples={"image": image, "text_input": question}, inference_method="generate", max_len=10)
    model.generate({"image": image, "prompt": "Question: which city is this? Answer:"}, num_captions=3)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from blip2_gated.images import ImageSource, TowerFeatures, outside_unit_range, prepare_images
from blip2_gated.prompts import PromptEncoder
from common.models.eval_mode import eval_mode
from common.text.chat_labels import IGNORED

Images = ImageSource | Sequence[ImageSource] | torch.Tensor | TowerFeatures | Mapping[str, Any]
Questions = str | Sequence[str]
VQA_OPTIONS = {"num_beams": 5, "max_new_tokens": 10, "length_penalty": 0.0}  # of BLIP-2's own evaluation
LAVIS_OPTIONS = {
    "max_len": "max_new_tokens",
    "max_length": "max_new_tokens",
    "min_len": "min_new_tokens",
    "min_length": "min_new_tokens",
    "num_captions": "num_return_sequences",
}
NUCLEUS_OPTIONS = {"do_sample": True, "num_beams": 1, "top_p": 0.9}  # LAVIS's use_nucleus_sampling


class GenerationMixin:
    """Text generation and answer ranking of Blip2OPTGated.

    images: one or more files or PIL images, pixels (B, 3, S, S), features, or LAVIS's samples with normalised pixels.
    questions: one for each image, or one for all. ValueError where their numbers differ.
    """

    @torch.no_grad()
    def generate(self, images: Images, questions: Questions = "", prompt: str = "", **options: Any) -> list[str]:
        """One text per image and question, up to its first newline; an empty question asks for a caption.

        prompt: a template with one {}, if not that of training. options: of transformers' generate, for instance
        num_beams.
        """
        prompts = self.prompts.with_template(prompt)
        with eval_mode(self):
            features, questions = self._read(images, questions)
            batch = prompts.collate(list(map(prompts.encode, questions)), "left", self.mean.device)
            control = self.control_tokens(features.pooled, batch["question_ids"], batch["question_mask"])
            tokens = self.blip2.language_model.generate(
                inputs_embeds=self._embeds(batch["input_ids"], self.image_tokens(features.patches, control)),
                attention_mask=batch["attention_mask"],
                pad_token_id=prompts.pad,
                eos_token_id=[prompts.newline, prompts.tokenizer.eos_token_id],
                tokenizer=prompts.tokenizer,  # for a language model with stop_strings
                **{"do_sample": False, "min_new_tokens": 1, "max_new_tokens": 30, **read_options(options)},
            )
        return prompts.decode(tokens)

    def predict_answers(
        self,
        samples: Images,
        questions: Questions = "",
        prompt: str = "",
        answer_list: Sequence[str] | None = None,
        num_ans_candidates: int = 128,
        inference_method: str = "",
        **options: Any,
    ) -> list[str]:
        """Short answers, decoded as in BLIP-2's VQA evaluation: 5 beams, at most 10 tokens, length penalty 0.

        samples: images. answer_list: the only possible answers, see rank_answers. inference_method: if not given,
        'rank' with an answer_list and 'generate' without. Other arguments as in `generate`.
        """
        method = inference_method or ("rank" if answer_list else "generate")
        if method not in ("generate", "rank") or (method == "rank" and not answer_list):
            raise ValueError(f"inference_method '{method}': expected 'generate', or 'rank' with an answer_list")
        if method == "rank":
            return self.rank_answers(samples, questions, answer_list, num_ans_candidates, prompt)
        options = {**VQA_OPTIONS, **read_options(options)}
        if options["num_beams"] == 1:
            del options["length_penalty"]  # without effect there, and transformers warns
        return self.generate(samples, questions, prompt, **options)

    @torch.no_grad()
    def rank_answers(
        self, images: Images, questions: Questions, answers: Sequence[str], num_candidates: int = 128, prompt: str = ""
    ) -> list[str]:
        """The most probable of `answers` to each question. Of more than num_candidates, those with the most probable
        first tokens are compared, as in BLIP."""
        prompts, best = self.prompts.with_template(prompt), []
        with eval_mode(self):
            features, questions = self._read(images, questions)
            for row, question in enumerate(questions):
                candidates = list(answers)
                if len(candidates) > num_candidates:
                    batch = prompts.collate([prompts.encode(question)], device=self.mean.device)
                    batch.pop("labels")
                    logits = self(**batch, features=features.row(row)).logits[0, -1]
                    first_tokens = [prompts.encode(question, answer).answer[0] for answer in candidates]
                    kept = logits[first_tokens].topk(num_candidates).indices
                    candidates = [candidates[index] for index in kept.tolist()]
                log_probs = self.answer_log_probs(features.row(row), question, candidates, prompts)
                best.append(candidates[int(log_probs.argmax())])
        return best

    def answer_log_probs(
        self, features: TowerFeatures, question: str, answers: Sequence[str], prompts: PromptEncoder | None = None
    ) -> torch.Tensor:
        """features of one image -> (N,) log P(an answer and its newline)."""
        prompts = prompts or self.prompts
        batch = prompts.collate([prompts.encode(question, answer) for answer in answers], device=self.mean.device)
        control = self.control_tokens(features.pooled, batch["question_ids"][:1], batch["question_mask"][:1])
        tokens = self.image_tokens(features.patches, control).expand(len(answers), -1, -1)
        logits = self.answer_logits(batch["input_ids"], batch["attention_mask"], tokens)[:, :-1].float()
        return -F.cross_entropy(logits.mT, batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none").sum(1)

    def prepare(self, images: torch.Tensor | Sequence[ImageSource]) -> torch.Tensor:
        """Files or PIL images -> (B, 3, S, S) uint8, as in training; tensors stay as they are."""
        pixels = images if torch.is_tensor(images) else prepare_images(images, self.image_size)
        return pixels.to(self.mean.device)

    def _read(self, images: Images, questions: Questions) -> tuple[TowerFeatures, list[str]]:
        """-> features, one question for each image."""
        if isinstance(images, Mapping):
            if "image" not in images:
                raise ValueError(f"samples with {list(images)}: expected 'image', and 'text_input' or 'prompt'")
            questions = images.get("text_input", images.get("prompt", ""))
            images = images["image"]
            if torch.is_tensor(images) and images.is_floating_point():
                if not outside_unit_range(images):
                    raise ValueError("samples['image']: floats in 0..1; expected LAVIS's normalised pixels, or uint8")
                images = self.tower_features(images.to(self.mean.device))
        if isinstance(images, ImageSource):
            images = [images]
        features = images if isinstance(images, TowerFeatures) else self.features(self.prepare(images))
        count = len(features.patches)
        questions = [questions] * count if isinstance(questions, str) else list(questions)
        if count != len(questions) or not questions:
            raise ValueError(f"{count} images, {len(questions)} questions: each image needs one")
        return features, questions


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with transformers' names or LAVIS's -> with transformers' names."""
    renamed = {LAVIS_OPTIONS.get(name, name): value for name, value in options.items()}
    return (NUCLEUS_OPTIONS if renamed.pop("use_nucleus_sampling", False) else {}) | renamed
