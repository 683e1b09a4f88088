"""Prefix cache of images: the keys and values of a prompt up to and including its image, computed once.

images (I), each behind the ids that every prompt begins with -> cache (I rows) -> generate, next_log_probabilities for
any number of prompts (R) about any of the images

    row r:  [pad  prefix of its image ][pad  rest of prompt r ][new tokens]      mask 0 on both pads

Positions count the mask, so a pad between two parts moves nothing, and a row has the results that it has alone.
"""

import copy
from itertools import takewhile

import torch
from PIL import Image
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from common.text.padding import pad
from llava.checkpoint import end_token_ids
from llava.sampling import SeededSampling
from llava.tokens import ChatFormatter, encode_images, pad_token_id


class ImagePrefixCache:
    """I RGB images, encoded once. A prompt is given by the ids behind its image: rest(prompt)."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, formatter: ChatFormatter, images: list[Image.Image]):
        processor, self.formatter, self.model = formatter.processor, formatter, model
        self.pad_id = pad_token_id(processor.tokenizer)
        encoded = encode_images(processor, images)
        self.head, _ = formatter.split(formatter.prompt("any question"))
        prefixes = [[*self.head[:-1], *run] for run in encoded.runs]  # the placeholder becomes the image's run
        self.prefix_tokens = [len(prefix) for prefix in prefixes]
        ids, self.mask = (tensor.to(model.device) for tensor in pad(prefixes, self.pad_id, "left"))  # (I, P)
        inputs = {
            name: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
            for name, value in encoded.inputs.items()
        }
        self.cache = DynamicCache(config=model.config)
        model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions(self.mask),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **inputs,
        )

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
        num_beams = 1 if sampling else num_beams
        ids, mask, cache = self._rows(images, rests, max_tokens, num_beams)
        written = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            num_beams=num_beams,
            pad_token_id=self.pad_id,
            logits_processor=[sampling] if sampling else [],
            tokenizer=self.formatter.processor.tokenizer,  # for a model with stop_strings
        )[:, ids.shape[1] :].tolist()
        ends = set(end_token_ids(self.model))
        return [list(takewhile(lambda token: token not in ends, row)) for row in written]

    @torch.inference_mode()
    def next_log_probabilities(self, images: list[int], rests: list[list[int]]) -> torch.Tensor:
        """Log-probabilities of the token that follows each prompt -> (R, vocabulary), float32 on the CPU."""
        ids, mask, cache = self._rows(images, rests)
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions(mask)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # (R, vocabulary)
        return logits.float().log_softmax(-1).cpu()

    def _rows(
        self, images: list[int], rests: list[list[int]], new_tokens: int = 0, num_beams: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """-> ids of the rests (R, T), mask of prefixes and rests (R, P + T), a cache of R * num_beams rows with space:
        generate() repeats ids and mask for its beams, but not a cache."""
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
        return ids, torch.cat([self.mask[index], mask], 1), cache


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
