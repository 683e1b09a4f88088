"""Images that were read once: all that stands before and with an image in a prompt is kept as keys and values.

images (I), each behind the ids that every prompt begins with -> cache (I rows) -> generate, next_log_probabilities for
any number of prompts (R) about any of the images

    row r:  [pad  prefix of its image ][pad  rest of prompt r ][new tokens]      mask 0 on both pads

Positions count the mask, so a pad between two parts moves nothing, and a row's numbers are those it has alone.
"""

import copy

import torch
from PIL import Image
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from llava.sampling import SeededSampling
from llava.tokens import ChatFormatter, encode_images, pad, placeholder_id, splice


class ImagePrefixCache:
    """I RGB images, read once. A prompt is given by what stands behind its image: rest(prompt)."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, formatter: ChatFormatter, images: list[Image.Image]):
        processor, self.formatter, self.model = formatter.processor, formatter, model
        tokenizer = processor.tokenizer
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        encoded = encode_images(processor, images)
        self.head, _ = formatter.split(formatter.prompt("any question"))
        prefixes = [splice(self.head, placeholder_id(processor), [run]) for run in encoded.runs]
        self.prefix_tokens = [len(prefix) for prefix in prefixes]
        ids, self.mask = (one.to(model.device) for one in pad(prefixes, self.pad_id, left=True))  # (I, P)
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
                "the chat template puts words of the question before the image, so images cannot be shared"
            )
        return rest

    @torch.inference_mode()
    def generate(
        self, images: list[int], rests: list[list[int]], max_tokens: int, sampling: SeededSampling | None = None
    ) -> list[list[int]]:
        """The image of each of R prompts, the rests of the prompts -> R lists of new ids, without the end token.

        sampling: None is greedy.
        """
        ids, mask, cache = self._rows(images, rests, max_tokens)
        written = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            num_beams=1,
            pad_token_id=self.pad_id,
            logits_processor=[sampling] if sampling else [],
        )[:, ids.shape[1] :].tolist()
        ends = stop_ids(self.model)
        return [row[: next((at for at, token in enumerate(row) if token in ends), len(row))] for row in written]

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
        self, images: list[int], rests: list[list[int]], new_tokens: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """-> ids of the rests (R, T), mask of prefixes and rests (R, P + T), a cache of R rows to write to."""
        device = self.model.device
        ids, mask = (one.to(device) for one in pad(rests, self.pad_id, left=True))
        index = torch.tensor(images, device=device)
        cache, room = DynamicCache(config=self.model.config), ids.shape[1] + new_tokens
        # Layers of a sliding window forget, and stay what they are.
        cache.layers = [
            PreallocatedCacheLayer(layer, index, room) if type(layer) is DynamicLayer else rows_of(layer, index)
            for layer in self.cache.layers
        ]
        return ids, torch.cat([self.mask[index], mask], 1), cache


class PreallocatedCacheLayer(DynamicLayer):
    """Keys and values (R, heads, T, D) of the given rows of a layer, with room for the next `tokens`. The library's own
    layer copies all that it holds for each new token: in a batch that is more work than attention itself."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, tokens: int):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.rooms = []
        for held in (layer.keys, layer.values):
            heads, length, width = held.shape[1:]
            room = held.new_empty(len(rows), heads, length + tokens, width)
            torch.index_select(held, 0, rows, out=room[..., :length, :])
            self.rooms.append(room)
        self._hold(layer.keys.shape[-2])

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments, **named):
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self.rooms[0].shape[-2]:
            return super().update(key_states, value_states, *arguments, **named)
        for room, states in zip(self.rooms, (key_states, value_states)):
            room[..., start:end, :] = states
        self._hold(end)
        return self.keys, self.values

    def _hold(self, tokens: int) -> None:
        self.keys, self.values = (room[..., :tokens, :] for room in self.rooms)


def rows_of(layer: DynamicLayer, rows: torch.Tensor) -> DynamicLayer:
    chosen = copy.copy(layer)
    chosen.batch_select_indices(rows)  # makes tensors of its own
    return chosen


def positions(mask: torch.Tensor) -> torch.Tensor:
    """mask (R, T), 1 = real -> the place of each token among the real ones."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def stop_ids(model: PreTrainedModel) -> set[int]:
    """Ids that end an answer."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [] if ends is None else [ends])
