"""Visual instruction pretraining of a vision encoder, end to end with a projector and a language model.

    python vitp/train.py --demo
    python vitp/train.py --model_name_or_path InternVL2_5-1B --meta_path data/meta.json --output_dir work_dirs/mine \\
        --max_steps 8000 --force_image_size 448 --max_dynamic_patch 6 --TMAug_prob 0.75 [--deepspeed zero_stage2.json]
    python vitp/train.py --vision_config vit_small_patch14_dinov2 --llm Qwen2.5-0.5B --meta_path ... --output_dir ...
    torchrun --nproc_per_node 8 vitp/train.py ...      resume: the same command and --resume_from_checkpoint true

flags -> model (vitp/checkpoint.py, vitp/compose.py), data (vitp/dataset.py) -> Trainer -> output_dir: a folder for
transformers, with checkpoint-N/ to resume from, settings.json, run.json, results.json; a folder in logs/
"""

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import exit_at_signals, run_script
from common.cli.failures import batch_hint
from common.cli.paths import find_from_root
from vitp.config import DataArguments, ModelArguments, read_command_line

if __name__ == "__main__":
    run_script(read_command_line)  # --help and mistakes are answered before the imports below, which take seconds
    exit_at_signals()

import torch
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from torch import nn
from transformers import set_seed
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.utils import is_flash_attn_2_available, logging

from common.models.checkpoint_file import read_tensors, weights_digest
from common.models.lora import VISION, merged, set_trainable
from common.models.weight_files import weights_folder
from common.text.files import write_atomically, write_json
from common.training.closing import print_closing
from common.training.device import disable_malloc_trim
from common.training.hf_trainer import MEMORY_FLAGS, FaultTolerantTrainer, find_resume_checkpoint
from common.training.resume_state import latest_valid_checkpoint
from common.training.run import Run, choose_run_name
from common.training.skip_log import open_logs
from common.training.trained_on import check_resume, describe_tensors, digest_of, source_name
from vitp import demo
from vitp.arguments import RunArguments, read_arguments, trainable_parts
from vitp.checkpoint import load_model
from vitp.compose import build_model
from vitp.dataset import Collator
from vitp.model import VIT, set_drop_path
from vitp.packing import PackedDataset
from vitp.processing import ModelBundle, build_processor, bundle_model, read_image_settings, read_tokenizer
from vitp.token_masking import build_masking
from vitp.training_data import InstructionData, open_data

FIXED = (  # settings that a resumed run must repeat
    *("model_name_or_path", "vision_config", "llm", "down_sample_ratio", "force_image_size", "conv_style"),
    *("max_seq_length", "dynamic_image_size", "use_thumbnail", "min_dynamic_patch", "max_dynamic_patch"),
    *("packing", "group_by_length"),
    *("freeze_llm", "freeze_mlp", "freeze_backbone", "freeze_batch_norm", "use_llm_lora", "use_backbone_lora"),
    *("TMAug_mode", "TMAug_prob", "TMAug_ratio"),
)


class InstructionTrainer(FaultTolerantTrainer):
    """Saves and restores the generator of the token masking with the other random states of each process."""

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.model.masking is not None:
            with write_atomically(self._masking_state(output_dir)) as file:
                torch.save(self.model.masking.generator.get_state(), file)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self.model.masking is not None and self.has_random_states(checkpoint):
            self.model.masking.generator.set_state(read_tensors(self._masking_state(checkpoint)))

    def _masking_state(self, folder: str) -> Path:
        return Path(folder) / f"token_masking_{self.args.process_index}.pt"


def main(argv: list[str]) -> dict:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    arguments = read_arguments(argv)
    if arguments[1].demo:
        arguments = read_arguments(argv, demo.prepare())
        set_seed(arguments[2].seed)  # as train() does
        build(*arguments).model.save_pretrained(demo.UNTRAINED)
    result, close = train(*arguments)
    if arguments[1].demo:
        result |= demo.evaluate(result["output_dir"])
    close()
    return result


def train(model_arguments: ModelArguments, data: DataArguments, run: RunArguments) -> tuple[dict, Callable[[], None]]:
    """-> {"loss", "steps", "seconds", "output_dir"}, with --eval_meta_path "eval_loss"; prints the closing lines."""
    checkpoint = check_arguments(model_arguments, data, run)
    source = (model_arguments.model_name_or_path, model_arguments.vision_config, model_arguments.llm)
    name = choose_run_name(run.run_name, "vitp", *source)
    set_seed(run.seed)
    disable_malloc_trim()
    # ZeRO-3 would shard each weight as it is made, and its file, position table and embeddings would not fit it. The
    # engine shards them when it starts; until then every process holds the whole model in main memory.
    if run.deepspeed:
        unset_hf_deepspeed_config()
    bundle = build(model_arguments, data, run)
    if run.deepspeed:
        set_hf_deepspeed_config(run.hf_deepspeed_config)
    train_set = open_data(data.meta_path, data, run, bundle)
    eval_set = open_data(data.eval_meta_path, data, run, bundle) if data.eval_meta_path else None
    trained_on = describe_run(model_arguments, data, run, bundle, train_set)
    if checkpoint:
        check_resume(trained_on, checkpoint, "--resume_from_checkpoint")
    if run.ddp_find_unused_parameters is None:  # an InternViT leaves no parameter unused, not even for text alone
        config = bundle.model.config
        run.ddp_find_unused_parameters = config.vision_feature_layer != -1 or config.vision_config.model_type != VIT
    bundle.model.masking = masking = build_masking(
        model_arguments.TMAug_mode,
        model_arguments.TMAug_prob,
        model_arguments.TMAug_ratio,
        seed=run.seed + 7919 * run.process_index,
    )
    bundle.model.freeze_batch_norm = model_arguments.freeze_backbone or model_arguments.freeze_batch_norm
    trained = set_trainable(bundle.model, trainable_parts(model_arguments))
    record = None
    if run.process_index == 0:
        settings = {**asdict(model_arguments), **asdict(data), **run.record()}
        folders, resume = (run.output_dir, run.logging_dir), checkpoint is not None
        record = Run(*folders, settings, resume, name, run.trackers, trained_on=trained_on)
    log_dir = broadcast_object_list([record and record.log_folder])[0]
    open_logs(train_set.logs, log_dir, record is not None)
    if eval_set is not None:
        open_logs({f"{name}_eval": log for name, log in eval_set.logs.items()}, log_dir, record is not None)
    trainer = build_trainer(trained, bundle, data, run, train_set, eval_set, record)
    if record is not None:
        trainable, total = (trained.num_parameters(only_trainable=trainable) for trainable in (True, False))
        print(f"{trainable:,} of {total:,} weights are trainable; {len(trainer.train_dataset):,} sequences per epoch")
        if masking is not None:
            action = {"zero": "zeroed", "drop": "dropped"}[masking.hide]
            print(f"image tokens: of {masking.probability:.0%} of the samples, {masking.ratio:.0%} are {action}")
    training = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    result = {
        "loss": training.training_loss,
        "steps": training.global_step,
        "seconds": training.metrics["train_runtime"],
        **({"eval_loss": trainer.evaluate_end()["eval_loss"]} if trainer.eval_dataset is not None else {}),
        "output_dir": run.output_dir,
    }
    save(trainer, result)
    if record is None:
        return result, lambda: None
    record.close()
    folder, logs = Path(run.output_dir), record.log_folder
    commands = [
        ["vitp/inference.py", "docs/maps.png", "What is in this picture?", "--model_name_or_path", folder],
        ["vitp/extract_vit.py", folder, "vit.pth"],  # the vision encoder alone
    ]
    return result, partial(print_closing, trainer.reached(), folder, folder / "results.json", logs, commands)


def build(model_arguments: ModelArguments, data: DataArguments, run: RunArguments) -> ModelBundle:
    """A model loaded whole or made of parts, with its template and tiling."""
    flash = "flash_attention_2" if (run.bf16 or run.fp16) and is_flash_attn_2_available() else "sdpa"
    loading = {"dtype": torch.float32, "attn_implementation": model_arguments.attn_implementation or flash}
    source = find_from_root(model_arguments.model_name_or_path or "")
    if source:
        model = load_model(source, model_arguments.drop_path, **loading)
        ratio, own = model_arguments.down_sample_ratio, model.config.downsample_ratio
        if ratio not in (None, own):
            raise ValueError(f"--down_sample_ratio {ratio:g}: {source} was built with {own:g}")
        source = str(weights_folder(source))
        statistics = read_image_settings(source)
    else:
        source = model_arguments.llm
        model, statistics = build_model(
            model_arguments.vision_config,
            source,
            data.force_image_size,
            model_arguments.drop_path,
            model_arguments.down_sample_ratio,
            **loading,
        )
    bundle = bundle_model(
        model,
        read_tokenizer(model_arguments.tokenizer or source),
        statistics,
        data.conv_style,
        data.force_image_size,
        min_tiles=data.min_dynamic_patch if data.dynamic_image_size else 1,
        max_tiles=data.max_dynamic_patch if data.dynamic_image_size else 1,
        thumbnail=data.use_thumbnail,
    )
    set_drop_path(model, model_arguments.drop_path)
    return bundle


def describe_run(
    model_arguments: ModelArguments,
    data: DataArguments,
    run: RunArguments,
    bundle: ModelBundle,
    train_set: InstructionData,
) -> dict[str, Any]:
    """What a resumed run must repeat. Of the data its text, since there may be millions of images."""
    settings, weights = asdict(model_arguments) | asdict(data), bundle.model.state_dict()
    has_lora = model_arguments.use_llm_lora or model_arguments.use_backbone_lora  # then checkpoints lack the base
    return {
        **{name: source_name(settings[name]) for name in FIXED},
        **run.fixed_on_resume(),
        "vision_learning_rate is set": bool(run.vision_learning_rate),  # then the encoder is a group of its own
        "model": describe_tensors(weights),
        "fingerprint": weights_digest(weights, sampled=True) if has_lora else "",
        "chat_template": digest_of(bundle.template.template),
        "conversations": train_set.describe(),
    }


def build_trainer(
    trained: nn.Module,
    bundle: ModelBundle,
    data: DataArguments,
    run: RunArguments,
    train_set: InstructionData,
    eval_set: InstructionData | None,
    record: Run | None = None,
) -> InstructionTrainer:
    """record: None on all but the main process."""
    return InstructionTrainer(
        trained,
        run,
        file_of=itemgetter("key"),
        group_by_length=data.group_by_length,
        max_nonfinite_steps=run.max_nonfinite_steps,
        learning_rates={VISION: run.vision_learning_rate},
        run=record,
        train_dataset=PackedDataset(train_set, run.seed) if data.packing else train_set,
        eval_dataset=eval_set,
        data_collator=Collator(bundle.template.tokenizer.pad_token_id),
        processing_class=build_processor(bundle.template, bundle.tiling),
    )


def check_arguments(model_arguments: ModelArguments, data: DataArguments, run: RunArguments) -> Path | None:
    """Raise for whatever is wrong before anything is built -> the checkpoint to resume from, if any."""
    parts = (model_arguments.vision_config, model_arguments.llm)
    if bool(model_arguments.model_name_or_path) == any(parts) or (any(parts) and not all(parts)):
        raise ValueError("give --model_name_or_path, or --vision_config and --llm")
    if run.n_gpu > 1:
        raise ValueError(
            f"{run.n_gpu} GPUs in one process; start with torchrun --nproc_per_node {run.n_gpu}, "
            "or select one with CUDA_VISIBLE_DEVICES=0"
        )
    if run.fsdp and run.use_cpu:
        raise ValueError("--fsdp needs GPUs: on a CPU accelerate ignores it silently")
    sharded = run.fsdp or (run.deepspeed and run.hf_deepspeed_config.is_zero3())
    if sharded and (model_arguments.use_llm_lora or model_arguments.use_backbone_lora):
        raise ValueError("LoRA is merged into unsharded weights: use --deepspeed zero_stage2.json or none with it")
    if run.label_smoothing_factor:
        raise ValueError("--label_smoothing_factor: not for this model, which computes logits at labelled tokens alone")
    if run.eval_strategy != "no" and not data.eval_meta_path:
        raise ValueError(f"--eval_strategy {run.eval_strategy} needs --eval_meta_path")
    checkpoint = find_resume_checkpoint(run.output_dir, run.resume_from_checkpoint)
    if checkpoint is None and (existing := latest_valid_checkpoint(run.output_dir)):
        raise ValueError(f"{existing} exists; resume with --resume_from_checkpoint true, or give another --output_dir")
    return checkpoint


def save(trainer: InstructionTrainer, result: dict) -> None:
    """Write a whole model to the output folder; checkpoints of LoRA hold the adapters, which are merged here."""
    folder = trainer.args.output_dir
    if not isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel):
        trainer.save_model()
    elif trainer.args.should_save:
        merged(trainer.model).save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
    trainer.save_state()
    if trainer.args.should_save:
        write_json(Path(folder) / "results.json", result)


if __name__ == "__main__":
    run_script(main, batch_hint("vitp", MEMORY_FLAGS))
