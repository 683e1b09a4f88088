"""Prefix cache of images: the keys and values of a prompt up to and including its image, computed once.

images (I), each behind the ids that every prompt begins with -> cache (I rows) -> generate, next_log_probabilities for
any number of prompts (R) about any of the images

    row r:  [pad  prefix of its image ][pad  rest of prompt r ][new tokens]      mask 0 on both pads

Positions count the mask, so a pad between two parts moves nothing, and a row has the results that it has alone.
"""

import copy
import inspect
import math
from itertools import takewhile
from typing import Any

import torch
from PIL import Image
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from common.text.padding import pad
from llava.checkpoint import end_token_ids
from llava.families import WITHOUT_PREFIX
from llava.sampling import SeededSampling
from llava.tokens import TOKEN_TYPES, ChatFormatter, encode_images, pad_token_id, splice_types


class ImagePrefixCache:
    """I RGB images, encoded once. A prompt is given by the ids behind its image: rest(prompt)."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, formatter: ChatFormatter, images: list[Image.Image]):
        processor, self.formatter, self.model = formatter.processor, formatter, model
        self.pad_id = pad_token_id(processor.tokenizer)
        self.head, _ = formatter.split(formatter.prompt("any question"))
        self._encode(images)

    def _encode(self, images: list[Image.Image]) -> None:
        prefixes, inputs = self._prefixes(images)
        self.prefix_tokens = [len(prefix) for prefix in prefixes]
        ids, self.mask = (tensor.to(self.model.device) for tensor in pad(prefixes, self.pad_id, "left"))  # (I, P)
        places, self.shifts = positions(self.mask), None
        if mrope := next(filter(None, (getattr(part, "get_rope_index", None) for part in self.model.modules())), None):
            names = inspect.signature(mrope).parameters.keys() & inputs.keys()
            places, self.shifts = mrope(ids, attention_mask=self.mask, **{name: inputs[name] for name in names})
        self.cache = DynamicCache(config=self.model.config)
        windows = (getattr(layer, "sliding_window", None) for layer in self.cache.layers)
        self.window = min(filter(None, windows), default=math.inf)
        self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **inputs,
        )

    def _prefixes(self, images: list[Image.Image]) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
        """Ids up to the end of each image; pixels and token types."""
        encoded, placeholder = encode_images(self.formatter.processor, [[image] for image in images]), self.head[-1]
        prefixes = [[*self.head[:-1], *run] for run in encoded.runs]  # the placeholder becomes the image's run
        types = {
            name: pad([splice_types(self.head, placeholder, [kinds]) for kinds in rows], 0, "left").values
            for name, rows in encoded.types.items()
        }
        device, dtype = self.model.device, self.model.dtype
        return prefixes, {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in (encoded.inputs | types).items()
        }

    def rest(self, prompt: str) -> list[int]:
        head, rest = self.formatter.split(prompt)
        if head != self.head:
            raise ValueError(
                "the chat template puts words of the question before the image, so no prefix can be cached"
            )
        return rest

    @torch.inference_mode()
    def generate(
        self,
        images: list[int],
        rests: list[list[int]],
        max_tokens: int,
        sampling: SeededSampling | None = None,
        num_beams: int = 1,
    ) -> list[list[int]]:
        """The image and the rest of each of R prompts -> R lists of new ids, without the end token.

        Without sampling, the most probable text that a beam search finds; with one beam that is greedy.
        """
        num_beams, ends = 1 if sampling else num_beams, set(end_token_ids(self.model))
        answers: dict[int, list[int]] = {}
        for rows in self._groups(rests, max_tokens):
            inputs = self._inputs([images[row] for row in rows], [rests[row] for row in rows], max_tokens, num_beams)
            written = self.model.generate(
                **inputs,
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                num_beams=num_beams,
                pad_token_id=self.pad_id,
                logits_processor=[sampling.select(rows)] if sampling else [],
                tokenizer=self.formatter.processor.tokenizer,  # for a model with stop_strings
            )[:, inputs["input_ids"].shape[1] :].tolist()
            answers |= {row: list(takewhile(lambda token: token not in ends, ids)) for row, ids in zip(rows, written)}
        return [answers[row] for row in range(len(rests))]

    @torch.inference_mode()
    def next_log_probabilities(self, images: list[int], rests: list[list[int]]) -> torch.Tensor:
        """Log-probabilities of the token that follows each prompt -> (R, vocabulary), float32 on the CPU."""
        logits: dict[int, torch.Tensor] = {}
        for rows in self._groups(rests):
            inputs = self._inputs([images[row] for row in rows], [rests[row] for row in rows])
            if "position_ids" in inputs:
                inputs["position_ids"] = inputs["position_ids"][..., -inputs["input_ids"].shape[1] :]
            logits |= zip(rows, self.model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1])
        return torch.stack([logits[row] for row in range(len(rests))]).float().log_softmax(-1).cpu()

    def _groups(self, rests: list[list[int]], new_tokens: int = 0) -> list[list[int]]:
        """Rows that can be one batch: all, unless a sliding window would count the padding between two parts."""
        rows = list(range(len(rests)))
        if self.mask.shape[1] + max(map(len, rests)) + new_tokens <= self.window:
            return [rows]
        return [[row for row in rows if len(rests[row]) == length] for length in sorted(set(map(len, rests)))]

    def _inputs(
        self, images: list[int], rests: list[list[int]], new_tokens: int = 0, num_beams: int = 1
    ) -> dict[str, Any]:
        """Arguments of the model: ids of the rests (R, T), mask and positions of prefixes and rests (R, P + T), a cache
        of R * num_beams rows with space: generate() repeats ids, mask and positions for its beams, but not a cache."""
        device = self.model.device
        ids, mask = (tensor.to(device) for tensor in pad(rests, self.pad_id, "left"))
        index = torch.tensor(images, device=device)
        cache, capacity = DynamicCache(config=self.model.config), ids.shape[1] + new_tokens
        rows = index.repeat_interleave(num_beams)
        # Layers with a sliding window drop old tokens, and keep their own class; beams are reordered at every token.
        cache.layers = [
            PreallocatedCacheLayer(layer, rows, capacity)
            if type(layer) is DynamicLayer and num_beams == 1
            else select_rows(layer, rows)
            for layer in self.cache.layers
        ]
        mask = torch.cat([self.mask[index], mask], 1)
        places = positions(mask)
        if self.shifts is not None:  # time, height and width of Qwen2-VL's positions, the same for text
            places = (places + self.shifts[index]).expand(3, -1, -1)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": places, "past_key_values": cache}


class WholePrompts(ImagePrefixCache):
    """The same for models whose cache holds more than keys and values, as LFM2's convolutions, and WITHOUT_PREFIX: each
    prompt from its beginning, with its image, one at a time."""

    def _encode(self, images: list[Image.Image]) -> None:
        self.prompts = [self._prefixes([image]) for image in images]
        self.prefix_tokens = [len(prefix) for (prefix,), _ in self.prompts]

    def _groups(self, rests: list[list[int]], new_tokens: int = 0) -> list[list[int]]:
        return [[row] for row in range(len(rests))]

    def _inputs(
        self, images: list[int], rests: list[list[int]], new_tokens: int = 0, num_beams: int = 1
    ) -> dict[str, Any]:
        (prefix,), inputs = self.prompts[images[0]]
        ids = torch.tensor([[*prefix, *rests[0]]], device=self.model.device)
        types = {name: functional.pad(inputs[name], (0, len(rests[0]))) for name in TOKEN_TYPES if name in inputs}
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs, **types}


def cache_images(model: PreTrainedModel, formatter: ChatFormatter, images: list[Image.Image]) -> ImagePrefixCache:
    """I RGB images, encoded once where the model's cache allows it."""
    layers = DynamicCache(config=model.config).layers
    is_plain = (
        all(isinstance(layer, DynamicLayer) for layer in layers) and model.config.model_type not in WITHOUT_PREFIX
    )
    return (ImagePrefixCache if is_plain else WholePrompts)(model, formatter, images)


class PreallocatedCacheLayer(DynamicLayer):
    """Keys and values (R, heads, T, D) of some rows of a layer, with space for the next `tokens`. The library's layer
    copies all of its content for each new token: in a batch that is more work than attention itself."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, tokens: int):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.buffers = []
        for states in (layer.keys, layer.values):
            heads, length, width = states.shape[1:]
            buffer = states.new_empty(len(rows), heads, length + tokens, width)
            torch.index_select(states, 0, rows, out=buffer[..., :length, :])
            self.buffers.append(buffer)
        self._set_length(layer.keys.shape[-2])

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments, **named):
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self.buffers[0].shape[-2]:
            return super().update(key_states, value_states, *arguments, **named)
        for buffer, states in zip(self.buffers, (key_states, value_states)):
            buffer[..., start:end, :] = states
        self._set_length(end)
        return self.keys, self.values

    def _set_length(self, tokens: int) -> None:
        self.keys, self.values = (buffer[..., :tokens, :] for buffer in self.buffers)


def select_rows(layer: DynamicLayer, rows: torch.Tensor) -> DynamicLayer:
    selected = copy.copy(layer)
    selected.batch_select_indices(rows)  # makes new tensors
    return selected


def positions(mask: torch.Tensor) -> torch.Tensor:
    """mask (R, T), 1 = real -> the position of each token among the real ones."""
    return (mask.cumsum(1) - 1).clamp(min=0)
