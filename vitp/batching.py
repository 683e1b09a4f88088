"""Samples -> sequences -> a batch.

samples of an InstructionDataset -> packs of several -> {input_ids, labels, position_ids, sample_ids, attention_mask
(B, T), pixel_values (tiles, 3, S, S)}
"""

from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from common.text.chat_labels import IGNORED
from common.text.padding import pad
from vitp.dataset import InstructionDataset, Sample
from vitp.packing import pack


class PackedDataset(Dataset):
    """Several samples of an InstructionDataset in each sequence of at most max_seq_length tokens."""

    def __init__(self, dataset: InstructionDataset, seed: int = 0):
        self.dataset = dataset
        lengths = dataset.lengths()
        usable = [index for index, length in enumerate(lengths) if length is not None]
        packs = pack([lengths[index] for index in usable], dataset.max_seq_length, seed)
        self.packs = [[usable[place] for place in one] for one in packs]
        self.pack_lengths = [sum(lengths[index] for index in one) for one in self.packs]

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> Sample:
        """Also position_ids (T,) from 0 in each sample, and sample_ids (T,)."""
        for step in range(len(self)):
            samples = self._read(self.packs[(index + step) % len(self)])
            if samples:
                return _join(samples)
        raise ValueError("no sample can be read")

    def lengths(self) -> list[int]:
        return self.pack_lengths

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    def _read(self, members: list[int]) -> list[Sample]:
        samples, room = [], self.dataset.max_seq_length
        for member in members:
            sample = self.dataset.read(member)
            if sample is None:
                continue
            if len(sample["input_ids"]) > room:
                reason = "its image is not of the width and height that the annotation says; the pack is full"
                self.dataset.skipped.add(self.dataset.where(member), reason, len(self.dataset))
                continue
            samples.append(sample)
            room -= len(sample["input_ids"])
        return samples


@dataclass(frozen=True)
class Collator:
    """Samples, packed or not -> a batch, padded on the right."""

    pad_token_id: int

    def __call__(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        padding = {"input_ids": self.pad_token_id, "labels": IGNORED, "position_ids": 0, "sample_ids": -1}
        batch = {
            name: pad([sample[name] for sample in samples], value).values
            for name, value in padding.items()
            if name in samples[0]
        }
        batch["attention_mask"] = pad([sample["input_ids"] for sample in samples], self.pad_token_id).mask
        pixels = [sample["pixel_values"] for sample in samples if "pixel_values" in sample]
        return batch | ({"pixel_values": torch.cat(pixels)} if pixels else {})


def _join(samples: list[Sample]) -> Sample:
    lengths = [len(sample["input_ids"]) for sample in samples]
    pixels = [sample["pixel_values"] for sample in samples if "pixel_values" in sample]
    return {
        **{name: torch.cat([sample[name] for sample in samples]) for name in ("input_ids", "labels")},
        "position_ids": torch.cat([torch.arange(length) for length in lengths]),
        "sample_ids": torch.arange(len(samples)).repeat_interleave(torch.tensor(lengths)),
        "where": "; ".join(sample["where"] for sample in samples),
        **({"pixel_values": torch.cat(pixels)} if pixels else {}),
    }
