"""Data of a run: annotation files or shards, as the meta file names them, and the logs of what is skipped.

open_data -> a data set; its describe() goes into trained_on.json, its logs get their files by open_logs
"""

from common.streaming.conversations import ShardedConversations
from common.streaming.shard_stream import reading_processes
from common.streaming.urls import is_remote
from common.training.skip_log import report_skipped, report_trimmed
from vitp.arguments import RunArguments
from vitp.config import DataArguments
from vitp.dataset import InstructionDataset
from vitp.meta_file import read_meta
from vitp.processing import ModelBundle
from vitp.streaming import stream_sources

InstructionData = InstructionDataset | ShardedConversations


def open_data(meta: str, data: DataArguments, run: RunArguments, bundle: ModelBundle) -> InstructionData:
    """Says on the main process what differs from the meta file."""
    sources = read_meta(meta)
    shared = bundle.template, bundle.tiling, data.max_seq_length, data.cache_dir
    if any(source.shards for source in sources):
        if data.packing or data.group_by_length or meta != data.meta_path:
            wrong = "--packing" if data.packing else "--group_by_length" if data.group_by_length else "--eval_meta_path"
            raise ValueError(f"{meta}: names shards, which {wrong} does not support; json2jsonl.py writes files")
        batch_size = run.train_batch_size * run.gradient_accumulation_steps * run.world_size
        streamed = stream_sources(sources, *shared, batch_size, run.seed, data.stream_buffer)
        run.dataloader_num_workers = reading_processes(
            run.dataloader_num_workers, run.device, is_remote(streamed.urls[0])
        )
        return streamed
    samples = InstructionDataset(sources, *shared, run.seed)
    if run.process_index == 0:
        report_skipped(samples.skipped.skipped)
        report_trimmed(samples.trimmed.skipped)  # those that are too long are found as they are read
    for source in samples.sources if run.process_index == 0 else ():
        name, count = f"{meta}, {source.name}", samples.counts[source.name]
        if source.length is not None and source.length != count:
            print(f"{name}: 'length' is {source.length}, but {source.annotation} holds {count}")
        if source.max_tiles not in (None, tiles := bundle.tiling.max_tiles):
            print(f"{name}: at most {source.max_tiles} tiles, by its max_dynamic_patch, not {tiles}")
    return samples
