"""Visual instruction pretraining: a vision encoder learns from what a language model must say about images.

    python vitp/train.py --demo
    python vitp/train.py --model_name_or_path InternVL2_5-1B --meta_path data/meta.json --output_dir work_dirs/mine \\
        --max_steps 8000 --force_image_size 448 --max_dynamic_patch 6 --TMAug_prob 0.75 [--deepspeed zero_stage2.json]
    python vitp/train.py --vision_config vit_small_patch14_dinov2 --llm Qwen2.5-0.5B --meta_path ... --output_dir ...
    torchrun --nproc_per_node 8 vitp/train.py ...      resume: the same command and --resume_from_checkpoint true

flags -> model (vitp.checkpoint, vitp.compose), data (vitp.dataset) -> Trainer -> output_dir: a folder for transformers,
with checkpoint-N/ to go on from, settings.json, run.json, skipped.jsonl and logs/.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.utils import is_flash_attn_2_available, logging

from common.cli.errors import run_script
from common.images.tiling import Tiling
from common.models.lora import merged, set_trainable
from common.text.files import write_json
from common.training.device import disable_malloc_trim
from common.training.hf_arguments import TrainerParser
from common.training.hf_trainer import find_resume_checkpoint
from common.training.resume_state import latest_valid_checkpoint
from common.training.run import Run
from common.training.skip_log import SkipLog
from vitp import demo
from vitp.batching import Collator, PackedDataset
from vitp.chat_template import ChatTemplate, prepare_tokenizer
from vitp.checkpoint import fit_to_images, fit_to_tokenizer, load_model
from vitp.compose import build_model
from vitp.config import DataArguments, ModelArguments, RunArguments
from vitp.dataset import InstructionDataset
from vitp.meta import read_meta
from vitp.model import VIT, VisualInstructionModel, set_drop_path
from vitp.processing import build_processor, read_image_settings, read_tokenizer
from vitp.token_masking import TokenMasking, build_masking
from vitp.trainer import InstructionTrainer


@dataclass
class Parts:
    """What training is made of."""

    model: VisualInstructionModel
    template: ChatTemplate
    tiling: Tiling

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.template.tokenizer


def main(argv: list[str]) -> dict:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parser = TrainerParser((ModelArguments, DataArguments, RunArguments), __doc__.split("\n\n")[0])
    given = parser.parse(argv)
    if not given[1].demo:
        return train(*given)
    given = parser.parse([*demo.prepare(), *argv])
    run = given[2]
    set_seed(run.seed)  # as train() begins
    build(*given).model.save_pretrained(demo.UNTRAINED)
    result = train(*given)
    return result | demo.examine(run.output_dir)


def train(model_arguments: ModelArguments, data: DataArguments, run: RunArguments) -> dict:
    """-> {"loss", "steps", "seconds", "output_dir"} and, with --eval_meta_path, "eval_loss"."""
    checkpoint = _check(model_arguments, data, run)
    set_seed(run.seed)
    disable_malloc_trim()
    with load_unsharded(run):
        parts = build(model_arguments, data, run)
    if run.ddp_find_unused_parameters is None:  # an InternViT leaves nothing unused, for text alone neither
        config = parts.model.config
        run.ddp_find_unused_parameters = config.vision_feature_layer != -1 or config.vision_config.model_type != VIT
    masking = build_masking(
        model_arguments.TMAug_mode,
        model_arguments.TMAug_prob,
        model_arguments.TMAug_ratio,
        seed=run.seed + 7919 * run.process_index,
    )
    parts.model.masking = masking
    trained = set_trainable(parts.model, model_arguments.trainable_parts())
    folder, log = _open_run(model_arguments, data, run, checkpoint is not None)
    trainer = build_trainer(trained, parts, data, run, masking, folder, log)
    if run.process_index == 0:
        _report(trained, trainer, masking)
    done = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    result = {"loss": done.training_loss, "steps": done.global_step, "seconds": done.metrics["train_runtime"]}
    if trainer.eval_dataset is not None:
        result["eval_loss"] = trainer.evaluate()["eval_loss"]
    result["output_dir"] = run.output_dir
    _save(trainer, result)
    if log is not None:
        log.lock.close()
    return result


def build(model_arguments: ModelArguments, data: DataArguments, run: RunArguments) -> Parts:
    """Model, tokenizer and tiling that fit each other."""
    half = run.bf16 or run.fp16
    flash = "flash_attention_2" if half and is_flash_attn_2_available() else "sdpa"
    loading = {"dtype": torch.float32, "attn_implementation": model_arguments.attn_implementation or flash}
    # A frozen encoder has nothing to regularise.
    drop_path = 0.0 if model_arguments.freeze_backbone else model_arguments.drop_path_rate
    if model_arguments.model_name_or_path:
        where = model_arguments.model_name_or_path
        model = load_model(where, drop_path, **loading)
        statistics = read_image_settings(where)
    else:
        where = model_arguments.llm
        model, statistics = build_model(
            model_arguments.vision_config, where, data.force_image_size, drop_path, **loading
        )
    tokenizer = read_tokenizer(model_arguments.tokenizer or where)
    prepare_tokenizer(tokenizer, data.conv_style)
    template = ChatTemplate(tokenizer, data.conv_style)
    tokens = fit_to_images(model, data.force_image_size)
    fit_to_tokenizer(model, tokenizer, template.end_token_id)
    set_drop_path(model, drop_path)
    tiling = Tiling(
        tile_size=model.config.vision_config.image_size[0],
        tokens=tokens,
        min_tiles=data.min_dynamic_patch if data.dynamic_image_size else 1,
        max_tiles=data.max_dynamic_patch if data.dynamic_image_size else 1,
        thumbnail=data.use_thumbnail,
        mean=tuple(statistics["image_mean"]),
        std=tuple(statistics["image_std"]),
    )
    return Parts(model, template, tiling)


def build_trainer(
    trained: nn.Module,
    parts: Parts,
    data: DataArguments,
    run: RunArguments,
    masking: TokenMasking | None,
    log: Path,
    record: Run | None = None,
) -> InstructionTrainer:
    """log: the folder where skipped samples are named."""
    rank = f"_{run.process_index}" if run.process_index else ""

    def dataset(meta: str, name: str) -> InstructionDataset:
        sources = read_meta(meta)
        skipped = SkipLog(log / f"{name}{rank}.jsonl")
        made = InstructionDataset(sources, parts.template, parts.tiling, data.max_seq_length, skipped, run.seed)
        if run.process_index == 0:
            _report_sources(made, parts.tiling)
        return made

    train_set = dataset(data.meta_path, "skipped")
    if data.packing:
        train_set = PackedDataset(train_set, run.seed)
    return InstructionTrainer(
        trained,
        run,
        masking=masking,
        group_by_length=data.group_by_length,
        max_nonfinite_steps=run.max_nonfinite_steps,
        run=record,
        train_dataset=train_set,
        eval_dataset=dataset(data.eval_meta_path, "skipped_eval") if data.eval_meta_path else None,
        data_collator=Collator(parts.tokenizer.pad_token_id),
        processing_class=build_processor(parts.tokenizer, parts.template.template, parts.tiling),
    )


@contextmanager
def load_unsharded(run: RunArguments) -> Iterator[None]:
    """ZeRO-3 would share out each weight as it is made, and its file, position table and embeddings would not fit it.

    The engine shares them out when it starts; until then every process holds the model once, in main memory.
    """
    if run.deepspeed:
        unset_hf_deepspeed_config()
    yield
    if run.deepspeed:
        set_hf_deepspeed_config(run.hf_deepspeed_config)


def _check(model_arguments: ModelArguments, data: DataArguments, run: RunArguments) -> Path | None:
    """Everything that can be wrong before anything is built -> the checkpoint to go on from, if any."""
    parts = (model_arguments.vision_config, model_arguments.llm)
    if not data.meta_path:
        raise ValueError("--meta_path is missing: the JSON file that names the training data (or try --demo)")
    if bool(model_arguments.model_name_or_path) == any(parts) or (any(parts) and not all(parts)):
        raise ValueError("give --model_name_or_path, or --vision_config and --llm")
    if run.n_gpu > 1:
        raise ValueError(
            f"{run.n_gpu} GPUs in one process; start with torchrun --nproc_per_node {run.n_gpu}, "
            "or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    if run.fsdp and run.use_cpu:
        raise ValueError("--fsdp needs GPUs: on a CPU accelerate would leave it out in silence")
    shared_out = run.fsdp or (run.deepspeed and run.hf_deepspeed_config.is_zero3())
    if shared_out and (model_arguments.use_llm_lora or model_arguments.use_backbone_lora):
        raise ValueError(
            "LoRA is added up where the weights are whole: use it with --deepspeed zero_stage2.json or none"
        )
    if run.label_smoothing_factor:
        raise ValueError("--label_smoothing_factor: not with this model, which makes logits for learnt tokens alone")
    if run.eval_strategy != "no" and not data.eval_meta_path:
        raise ValueError(f"--eval_strategy {run.eval_strategy} needs --eval_meta_path")
    checkpoint = find_resume_checkpoint(run.output_dir, run.resume_from_checkpoint)
    if checkpoint is None and (existing := latest_valid_checkpoint(run.output_dir)):
        raise ValueError(f"{existing} exists; resume with --resume_from_checkpoint true, or give another --output_dir")
    return checkpoint


def _open_run(model_arguments, data, run: RunArguments, resume: bool) -> tuple[Path, Run | None]:
    """-> folder for the logs; the run's record, on the main process only"""
    log_dir = Path(run.output_dir) / "logs"
    if run.process_index:
        log_dir.mkdir(parents=True, exist_ok=True)
        return log_dir, None
    settings = {**asdict(model_arguments), **asdict(data), **json.loads(run.to_json_string())}
    log = Run(run.output_dir, log_dir, settings, resume)
    return log.log_folder, log


def _save(trainer: InstructionTrainer, result: dict) -> None:
    """The output folder is a whole model; with LoRA the checkpoints hold the additions, and here they are added up."""
    folder = trainer.args.output_dir
    if not isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel):
        trainer.save_model()
    elif trainer.args.should_save:
        merged(trainer.model).save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
    trainer.save_state()
    if trainer.args.should_save:
        write_json(Path(folder) / "results.json", result)
        print(f"the model is in {folder}; its vision encoder alone: python vitp/extract_vit.py {folder} vit.pth")


def _report(trained: nn.Module, trainer: InstructionTrainer, masking: TokenMasking | None) -> None:
    learning = sum(one.numel() for one in trained.parameters() if one.requires_grad)
    every = sum(one.numel() for one in trained.parameters())
    print(f"{learning:,} of {every:,} weights learn; {len(trainer.train_dataset):,} sequences an epoch")
    if masking is not None:
        how = {"zero": "zeroed", "drop": "dropped"}[masking.hide]
        print(f"image tokens: of {masking.probability:.0%} of the samples, {masking.ratio:.0%} are {how}")


def _report_sources(dataset: InstructionDataset, tiling: Tiling) -> None:
    for source in dataset.sources:
        found = dataset.counts[source.name]
        if source.length is not None and source.length != found:
            print(f"{source.name}: 'length' says {source.length}, {source.annotation} holds {found}")
        if source.max_tiles not in (None, tiling.max_tiles):
            print(f"{source.name}: at most {source.max_tiles} tiles, by its max_dynamic_patch, not {tiling.max_tiles}")


if __name__ == "__main__":
    run_script(main)
