"""Several samples in one sequence, none of which attends to another.

lengths -> packs of sample indices, each at most max_length tokens -> PackedDataset
sample_ids (B, T), equal within each sample, -1 at padding -> attention mask
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch

from common.training.skipping_dataset import SkippingDataset
from vitp.dataset import InstructionDataset, Sample, join_pixels


class PackedDataset(SkippingDataset):
    """Several samples of an InstructionDataset in each sequence of at most max_seq_length tokens."""

    def __init__(self, dataset: InstructionDataset, seed: int = 0):
        self.dataset = dataset
        lengths = {index: length for index, length in enumerate(dataset.lengths()) if length is not None}
        self.packs = pack(lengths, dataset.max_seq_length, seed)
        self.pack_lengths = [sum(lengths[index] for index in members) for members in self.packs]

    def __len__(self) -> int:
        return len(self.packs)

    def lengths(self) -> list[int]:
        return self.pack_lengths

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    def read(self, index: int) -> Sample | None:
        """A Sample with position_ids (T,) from 0 in each of its samples, and sample_ids (T,)."""
        samples, room = [], self.dataset.max_seq_length
        for member in self.packs[index]:
            sample = self.dataset.read(member)
            if sample is not None and len(sample["input_ids"]) <= room:
                samples.append(sample)
                room -= len(sample["input_ids"])
            elif sample is not None:
                reason = "its image is not of the width and height that the annotation says; the pack is full"
                self.dataset.skipped.add(self.dataset.key(member), reason, len(self.dataset))
        return join_samples(samples) if samples else None


def join_samples(samples: list[Sample]) -> Sample:
    lengths = [len(sample["input_ids"]) for sample in samples]
    return {
        **{name: torch.cat([sample[name] for sample in samples]) for name in ("input_ids", "labels")},
        "position_ids": torch.cat([torch.arange(length) for length in lengths]),
        "sample_ids": torch.arange(len(samples)).repeat_interleave(torch.tensor(lengths)),
        "key": "; ".join(sample["key"] for sample in samples),
        **join_pixels(samples),
    }


def pack(lengths: Mapping[int, int], max_length: int, seed: int) -> list[list[int]]:
    """{sample index: tokens} -> indices in packs of at most max_length tokens; each sample is in one pack.

    Best-fit decreasing: longest first, each into the open pack that it fills most (at most 11/9 of the fewest packs).
    Among equal lengths, and in every pack, the order is drawn from `seed`.
    """
    if (longest := max(lengths.values(), default=0)) > max_length:
        raise ValueError(f"a sample of {longest} tokens does not fit into a sequence of {max_length}")
    random = np.random.default_rng(seed)
    packs: list[list[int]] = []
    by_room = defaultdict(list)  # free tokens -> packs
    rooms: list[int] = []  # those of open packs, rising
    for sample in sorted(random.permutation(list(lengths)).tolist(), key=lambda index: -lengths[index]):
        smallest = bisect_left(rooms, lengths[sample])
        if smallest == len(rooms):
            number, room = len(packs), max_length
            packs.append([])
        else:
            room = rooms[smallest]
            number = by_room[room].pop()
            if not by_room[room]:
                del rooms[smallest]
        packs[number].append(sample)
        room -= lengths[sample]
        if not by_room[room]:
            insort(rooms, room)
        by_room[room].append(number)
    return [random.permutation(members).tolist() for members in packs]
