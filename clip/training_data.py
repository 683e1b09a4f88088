"""What CLIP is trained on: pairs of a local folder in any order, or pairs of streamed shards.

settings -> LocalPairs or StreamedPairs -> build(model) -> loader of training batches, validation set
"""

import shutil
from argparse import Namespace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
from accelerate import Accelerator
from torch.utils.data import DataLoader

from clip.dataset import PairDataset, PairViews, find_data, find_pairs, split_pairs
from clip.model import CLIPModel
from clip.pair_files import Columns, entry_of
from clip.pair_table import PairTable
from clip.pairs import read_entry
from clip.tokenizer import encode_texts
from common.cli.paths import find_from_root
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.transforms import Augmentation, SampleKey
from common.streaming.counts import count_samples, mean_bytes
from common.streaming.members import members_of
from common.streaming.order import StreamOrder
from common.streaming.shard_reader import RetryingFile
from common.streaming.shard_stream import ShardSamples, ShardStream, reading_processes
from common.streaming.urls import expand_urls, is_remote, is_streamed, shard_name
from common.text.files import write_atomically
from common.training.loader import make_loader
from common.training.samplers import DeterministicBatchSampler
from common.training.skip_log import SkipLog, check_skip_rate, report_skipped
from common.training.trained_on import digest_of

SAMPLED = 10_000  # texts that tell the share of truncated ones at the start
INDEX = "shards.json"  # in CACHE_DIR: numbers of samples that were counted


class TrainingData:
    """skipped: {entry, image or shard: reason}, of those found so far. logs: {file: SkipLog} of those found later."""

    def __init__(self, settings: Namespace, accelerator: Accelerator):
        self.settings, self.accelerator = settings, accelerator
        self.skipped: dict[str, str] = {}
        self.logs = {"skipped.jsonl": SkipLog(limit=settings.max_skipped, quiet=False)}

    def build(self, model: CLIPModel) -> tuple[DataLoader, PairDataset | None]:
        """-> loader of training batches, validation set. Reads a few images."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What a resumed run must repeat."""
        raise NotImplementedError

    def summary(self, model: CLIPModel) -> str:
        """One line, after build()."""
        raise NotImplementedError

    @property
    def batch_size(self) -> int:
        return self.settings.batch_size * self.settings.accum_batches

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.settings.crop_scale, self.settings.flip_prob, self.settings.seed)

    def set_log_folder(self, folder: Path) -> None:
        """Where all processes name what they skip."""
        for name, log in self.logs.items():
            log.path = folder / name

    def read_pairs(self, data_dir: str) -> tuple[PairTable, dict[str, str]]:
        return find_pairs(data_dir, self.settings.text_fields, Columns.of(vars(self.settings)))

    def check(self, data_dir: str, pairs: PairTable, skipped: dict[str, str], model: CLIPModel) -> ImageCache:
        """Check a few images -> the cache of them all; adds what cannot be used to `skipped`."""
        settings = self.settings
        cache_dir = settings.cache_dir if settings.cache_images else None
        size, quiet = round(CACHE_SCALE * model.image_size), not self.accelerator.is_main_process
        images = ImageCache(size, cache_dir, settings.cache_gb, data_dir, quiet, settings.cache_format)
        total = len(pairs) + len(skipped)
        with self.accelerator.main_process_first():  # the others read what the first has decoded
            skipped |= images.check(pairs.images)
        self.skipped |= skipped
        if self.accelerator.is_main_process:
            report_skipped(skipped)
        check_skip_rate(skipped, total, settings.max_skipped, data_dir)
        return images

    def build_validation(self, model: CLIPModel) -> PairDataset | None:
        """VAL_DATA, whole."""
        if not self.settings.val_data:
            return None
        with self.accelerator.main_process_first():
            folder = _local_copy(self.settings.val_data, Path(self.settings.cache_dir))
        self.settings.val_data = folder  # which evaluate.py can read
        pairs, skipped = self.read_pairs(folder)
        images = self.check(folder, pairs, skipped, model)
        shared = images, model.preprocess, model.tokenizer
        return PairDataset(pairs.without(skipped), *shared, skipped=self.logs["skipped.jsonl"])


class LocalPairs(TrainingData):
    """Pairs in a table and their images on a disk; every sample once an epoch, in an order over all of them."""

    def __init__(self, settings: Namespace, accelerator: Accelerator):
        super().__init__(settings, accelerator)
        with accelerator.main_process_first():
            settings.data_dir = str(find_data(settings.data_dir, settings.demo, accelerator.is_main_process))
        self.pairs, self.unusable = self.read_pairs(settings.data_dir)

    def describe(self) -> dict[str, Any]:
        return {"pairs": self.pairs.describe()}

    def build(self, model: CLIPModel) -> tuple[DataLoader, PairDataset | None]:
        settings, log = self.settings, self.logs["skipped.jsonl"]
        images = self.check(settings.data_dir, self.pairs, self.unusable, model)
        pairs = self.pairs.without(self.unusable)
        self.val_set = self.build_validation(model)
        train, val = split_pairs(pairs, 0.0 if self.val_set else settings.val_split, settings.seed)
        shared = images, model.preprocess, model.tokenizer
        self.train_set = PairDataset(train, *shared, self.augmentation, log)
        if len(val):
            self.val_set = PairDataset(val, *shared, skipped=log)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches = DeterministicBatchSampler(len(train), self.batch_size, settings.seed, rank, world)
        device, dataset = self.accelerator.device, self.train_set
        return make_loader(dataset, batches, device, settings.num_workers, dataset.collate), self.val_set

    def summary(self, model: CLIPModel) -> str:
        tables = [dataset.pairs for dataset in (self.train_set, self.val_set) if dataset]
        texts = pa.concat_arrays([table.unique_texts() for table in tables])
        counted = texts[:: -(-len(texts) // SAMPLED)].to_pylist()
        truncated = encode_texts(model.tokenizer, counted).truncated
        sample = f" of {len(counted)} sampled ones" * (len(counted) < len(texts))
        return (
            f"{len(self.train_set)} images to train on, {len(self.val_set or ())} to validate; {len(texts)} unique "
            f"texts, {truncated}{sample} ({truncated / len(counted):.1%}) truncated to "
            f"{model.tokenizer.context_length} tokens"
        )


class StreamedPairs(TrainingData):
    """Pairs of shards, local or remote, which are read in the order of a StreamOrder."""

    def __init__(self, settings: Namespace, accelerator: Accelerator):
        super().__init__(settings, accelerator)
        if not is_streamed(settings.data_dir):
            settings.data_dir = find_from_root(settings.data_dir)
        self.logs["skipped_shards.jsonl"] = SkipLog(limit=settings.max_skipped, quiet=False, unit="shards")
        urls = expand_urls(settings.data_dir)
        with accelerator.main_process_first():  # the others find what the first has counted
            index, quiet = Path(settings.cache_dir) / INDEX, not accelerator.is_main_process
            counts, self.skipped = count_samples(urls, index, quiet)
        if accelerator.is_main_process:
            report_skipped(self.skipped)
        check_skip_rate(self.skipped, len(urls), settings.max_skipped, settings.data_dir, "shards")
        kept = [(url, count) for url, count in zip(urls, counts) if url not in self.skipped]
        self.urls = [url for url, _ in kept]
        self.order = StreamOrder(
            tuple(count for _, count in kept),
            self.batch_size,
            settings.seed,
            settings.stream_lanes,
            settings.stream_buffer,
        )

    def describe(self) -> dict[str, Any]:
        samples, shards = sum(self.order.counts), list(zip(map(shard_name, self.urls), self.order.counts))
        flags = ("epoch_samples", "stream_lanes", "stream_buffer")
        return {
            **{name: getattr(self.settings, name) for name in flags},
            "pairs": f"{samples} in {len(shards)} shards, digest {digest_of(shards)}",
        }

    def build(self, model: CLIPModel) -> tuple[DataLoader, PairDataset | None]:
        settings, device = self.settings, self.accelerator.device
        decode = PairDecoder(model, self.augmentation, settings.text_fields)
        samples = ShardSamples(self.urls, self.order, decode, *self.logs.values())
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches = ShardStream(self.order, settings.epoch_samples, rank, world)
        num_workers = reading_processes(settings.num_workers, device, is_remote(self.urls[0]))
        self.val_set = self.build_validation(model)
        return make_loader(samples, batches, device, num_workers, decode.collate), self.val_set

    def summary(self, model: CLIPModel) -> str:
        order, size = self.order, mean_bytes(self.urls[0], self.order.counts[0])
        buffer = min(order.buffer, sum(order.counts))
        megabytes = f" ({buffer * size / 1e6:,.0f} MB)" * bool(size)
        val = f"{len(self.val_set)} images to validate" if self.val_set else "no validation (VAL_DATA names its data)"
        return (
            f"{sum(order.counts)} pairs to train on in {len(self.urls)} shards, read in {order.lane_count} lanes and "
            f"shuffled within {buffer:,} samples{megabytes} over all devices; {val}"
        )


class PairDecoder(PairViews):
    """A sample of a shard, a SampleKey -> a view as PairDataset gives it. ValueError for a sample without a pair."""

    def __init__(self, model: CLIPModel, augmentation: Augmentation, text_fields: list[str]):
        super().__init__(model.preprocess, model.tokenizer, augmentation)
        self.images, self.text_fields = ImageCache(round(CACHE_SCALE * model.image_size)), text_fields

    def __call__(self, sample: dict[str, Any], key: SampleKey) -> dict[str, Any]:
        image, texts, (character, *_) = read_entry(entry_of(members_of(sample)), Path(), self.text_fields)
        return self.view(self.images[image], texts, character, key)


def open_data(settings: Namespace, accelerator: Accelerator) -> TrainingData:
    streamed = settings.stream or is_streamed(settings.data_dir)
    return (StreamedPairs if streamed else LocalPairs)(settings, accelerator)


def _local_copy(spec: str, cache_dir: Path) -> str:
    """A folder or file of validation data; shards on a server are copied into the cache folder once."""
    if not is_streamed(spec):
        return find_from_root(spec)
    urls = expand_urls(spec)
    folder = cache_dir / f"validation-{blake2b(repr(urls).encode(), digest_size=6).hexdigest()}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, url in enumerate(urls):
        path = folder / f"{number:05d}.tar"
        if not path.is_file():
            with RetryingFile(url) as source, write_atomically(path) as copy:
                shutil.copyfileobj(source, copy, 2**20)
    return str(folder)
