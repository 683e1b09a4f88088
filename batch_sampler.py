"""Batch sampler of the style encoder: groups of images of one style, real, redrawn and drawn."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from common.images.transforms import SampleKey
from common.samples.invented import MAKER
from dataset import StyleDataset


class PKBatchSampler:
    """Batches of P groups of K images of one style.

    `remix_share` of the groups are redrawn, each into an invented style of its own (common/images/transforms.py), and
    `drawn_share` are drawings in invented styles (common/samples/invented.py), two by two of one maker; the others are
    of different styles. `grey_prob` of the batches lose their colours, so that strokes must separate the styles; never
    a part of a batch, which would teach that colours do not matter. Where styles share names, a batch of every other
    epoch shows the same contents in each: in every epoch, equal content would become a sign of different styles.

    An epoch shows every unchanged image at least once; styles with fewer images are repeated, so that a batch holds as
    many styles as possible. An epoch's batches are a pure function of (seed, epoch), so training can resume from any of
    them, and each of `world` devices takes its share of every batch.
    """

    def __init__(
        self,
        dataset: StyleDataset,
        batch_size: int,
        images_per_style: int,
        remix_share: float = 0.0,
        drawn_share: float = 0.0,
        grey_prob: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.style_ids, self.name_ids = dataset.style_ids, dataset.name_ids
        self.counts = np.bincount(self.style_ids)  # images of each style
        self.drawings = dataset.drawing_indices
        makers = len(self.drawings) // MAKER if self.drawings.shape[1] >= images_per_style else 0
        drawn_share = drawn_share if makers else 0.0
        groups = batch_size // max(images_per_style, 1)
        self.plain = max(1, min(len(self.counts), groups - round(groups * (remix_share + drawn_share))))
        invented = groups - self.plain if remix_share + drawn_share else 0
        self.drawn = min(round(invented * drawn_share / max(remix_share + drawn_share, 1e-9)), 2 * makers)
        self.remixed = invented - self.drawn if remix_share else 0
        self.images_per_group = images_per_style if invented else batch_size // self.plain
        styles = self.plain + self.remixed + self.drawn
        size = styles * self.images_per_group
        if images_per_style < 2 or self.images_per_group < 2 or styles < 2:
            raise ValueError(
                f"BATCH_SIZE {batch_size} with IMAGES_PER_STYLE {images_per_style} and {len(self.counts)} style(s): "
                "a batch needs at least 2 styles of at least 2 images"
            )
        if size % world:
            raise ValueError(f"a batch of {size} images cannot be shared equally by {world} devices")
        self.grey_prob, self.seed, self.rank, self.world = grey_prob, seed, rank, world
        self.epoch = self.start = 0
        self.groups = -(-self.counts // self.images_per_group)  # of each style
        self.batches_per_epoch = max(int(self.groups.max()), -(-int(self.groups.sum()) // self.plain))

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration yields the batches of `epoch` from number `start` on."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in islice(self.epoch_batches(self.epoch), self.start, None):
            yield batch[self.rank :: self.world]

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start

    def epoch_batches(self, epoch: int) -> Iterator[list[SampleKey]]:
        random = np.random.default_rng([self.seed, epoch])
        draws = random.random(self.name_ids.max() + 1)  # one order of contents for all styles
        turns = draws[self.name_ids] if epoch % 2 == 0 else random.random(len(self.name_ids))
        order = np.split(np.lexsort((turns, self.style_ids)), np.cumsum(self.counts)[:-1])  # members of each style
        remaining = self.groups.copy()

        def group(style: int, number: int) -> np.ndarray:
            """K members; the last group is filled from the front."""
            size = self.images_per_group
            return order[style].take(range(number * size, (number + 1) * size), mode="wrap")

        for batch_number in range(self.batches_per_epoch):
            longest = np.lexsort((random.random(len(remaining)), -remaining))[: self.plain].tolist()
            batch, grey = [], random.random() < self.grey_prob
            for style in longest:
                total, left = int(self.groups[style]), int(remaining[style])
                members = group(style, total - left if left else int(random.integers(total)))
                remaining[style] = max(0, left - 1)
                batch += [SampleKey(epoch, index, 0, grey) for index in members.tolist()]
            for _ in range(self.remixed):
                style, style_seed = int(random.integers(len(order))), int(random.integers(1, 2**31))
                members = group(style, batch_number % int(self.groups[style]))
                batch += [SampleKey(epoch, index, style_seed, grey) for index in members.tolist()]
            for drawings in self._drawings(random):
                batch += [SampleKey(epoch, index, 0, grey) for index in drawings]
            yield batch

    def _drawings(self, random: np.random.Generator) -> list[list[int]]:
        """Groups of drawings; two styles of one maker after the other."""
        makers = random.permutation(len(self.drawings) // MAKER)[: -(-self.drawn // 2)]
        styles = [maker * MAKER + sibling for maker in makers for sibling in random.permutation(MAKER)[:2]]
        return [
            self.drawings[style, random.permutation(self.drawings.shape[1])[: self.images_per_group]].tolist()
            for style in styles[: self.drawn]
        ]
