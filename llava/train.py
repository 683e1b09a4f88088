"""Fine-tuning of LLaVA on conversations about images: LoRA on the language model, the whole projector.

python llava/train.py --model_id llava-hf/llava-1.5-7b-hf --data conversations.jsonl --output_dir checkpoints/mine
python llava/train.py --demo                                drawn scenes and a small model, minutes on a CPU
python llava/train.py ... --resume_from_checkpoint true     resume after an interruption, with the same weights
torchrun --nproc_per_node 2 llava/train.py ...              several GPUs; --deepspeed, --fsdp, --bf16 as in Trainer

flags -> model, conversations -> Trainer -> output_dir: an adapter or a model, checkpoint-N/ to resume from,
settings.json, run.json, results.json; a folder in logs/ with log.jsonl, skipped.jsonl and TensorBoard's files
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import exit_at_signals, run_script
from common.cli.failures import batch_hint
from llava.config import FineTuning, read_command_line

if __name__ == "__main__":
    run_script(read_command_line)  # --help and mistakes are answered before the imports below, which take seconds
    exit_at_signals()

from accelerate.utils import broadcast_object_list
from peft import PeftModel
from torch import nn
from transformers import set_seed

from common.cli.paths import find_inputs
from common.models.checkpoint_file import weights_digest
from common.text.files import write_json
from common.training.closing import print_closing
from common.training.device import disable_malloc_trim
from common.training.hf_trainer import MEMORY_FLAGS, find_resume_checkpoint
from common.training.run import Run, choose_run_name
from common.training.skip_log import open_logs
from common.training.trained_on import check_resume, describe_tensors, digest_of
from llava.arguments import RunArguments, read_arguments
from llava.checkpoint import LoadedModel, end_tokens, fingerprint, load_image_text_model
from llava.dataset import ConversationCollator, ConversationTokenizer
from llava.demo import prepare_demo
from llava.independent_turns import MODEL_TYPES
from llava.model import prepare_for_training
from llava.style_tower import find_style_encoder
from llava.tokens import ChatFormatter
from llava.trainer import LlavaTrainer, LogPredictionsCallback
from llava.training_data import TrainingData, make_datasets, open_data

FIXED = (  # settings that a resumed run must repeat
    *("lora_rank", "lora_alpha", "bits", "train_vision_tower", "freeze_language_model", "val_split", "max_length"),
    "independent_turns",
)


def main(argv: list[str]) -> dict[str, Any]:
    return train(*read_arguments(argv))


def train(tuning: FineTuning, training: RunArguments) -> dict[str, Any]:
    """-> the log's history and, with validation samples, the last evaluation."""
    find_inputs(tuning, "model_id", "data", "image_dir", "style_encoder")
    is_main = training.process_index == 0
    name = choose_run_name(training.run_name, "llava", tuning.model_id)
    if tuning.demo:
        with training.main_process_first():
            prepare_demo()
    checkpoint = find_resume_checkpoint(training.output_dir, training.resume_from_checkpoint)
    source = open_data(tuning, training)  # before a large model is loaded
    set_seed(training.seed)
    loaded = load_base(tuning, training)
    formatter = ChatFormatter(loaded.processor, tuning.system_prompt)
    tokenizer = ConversationTokenizer(formatter, end_tokens(loaded), tuning.max_length, tuning.independent_turns)
    train_set, val_set = make_datasets(source, tuning, training, tokenizer)
    trained_on = describe_run(tuning, training, loaded, formatter, train_set)
    if checkpoint:
        check_resume(trained_on, checkpoint, "--resume_from_checkpoint")
    set_seed(training.seed)
    model = prepare_for_training(
        loaded.model,
        tuning.lora_rank,
        tuning.lora_alpha,
        tuning.lora_dropout,
        tuning.train_vision_tower,
        tuning.freeze_language_model,
    )
    settings = {**vars(tuning), **training.record()}
    if val_set is None:
        training.eval_strategy = "no"
    folders, resume = (training.output_dir, training.logging_dir), checkpoint is not None
    trained_on |= {"model_id": tuning.model_id}  # for messages; the folder may be another when the run is resumed
    run = Run(*folders, settings, resume, name, training.trackers, trained_on=trained_on) if is_main else None
    open_logs(train_set.logs, broadcast_object_list([run and run.log_folder])[0], is_main)
    with run.lock if run else nullcontext():
        if run:
            print_summary(model, len(train_set), len(val_set or ()))
        trainer = LlavaTrainer(
            model,
            training,
            data_collator=ConversationCollator(formatter.processor),
            train_dataset=train_set,
            eval_dataset=val_set,
            processing_class=formatter.processor,
            projector_learning_rate=tuning.projector_learning_rate,
            max_nonfinite_steps=tuning.max_nonfinite_steps,
            run=run,
            callbacks=[LogPredictionsCallback(val_set, tuning.show_samples, formatter, run)] if run and val_set else [],
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        results = {"train": trainer.state.log_history, **(trainer.evaluate_end() if val_set else {})}
        trainer.save_model()
        if run:
            run.close()
            finish(loaded, trainer, results, tuning, run.log_folder)
    return results


def load_base(tuning: FineTuning, training: RunArguments) -> LoadedModel:
    """The frozen base of LoRA in the number format of training, anything else in fp32."""
    if training.device.type == "cpu":
        disable_malloc_trim()
    # Trainable weights stay fp32 under autocast; frozen ones need not.
    frozen_base = tuning.lora_rank and not tuning.freeze_language_model
    half = "bf16" if training.bf16 else "fp16" if training.fp16 else "fp32"
    if tuning.independent_turns and tuning.attention not in ("auto", "sdpa"):
        raise ValueError(f"--attention {tuning.attention}: only sdpa takes the mask of --independent_turns")
    loaded = load_image_text_model(
        tuning.model_id,
        device=str(training.device),
        precision=half if frozen_base else "fp32",
        attention="sdpa" if tuning.independent_turns else tuning.attention,
        bits=tuning.bits,
        style_encoder=tuning.style_encoder,
    )
    if tuning.independent_turns and (kind := loaded.model.config.model_type) not in MODEL_TYPES:
        raise ValueError(f"--independent_turns: works for {', '.join(MODEL_TYPES)}; {tuning.model_id} is {kind}")
    return loaded


def describe_run(
    tuning: FineTuning, training: RunArguments, loaded: LoadedModel, formatter: ChatFormatter, train_set: TrainingData
) -> dict[str, Any]:
    """What a resumed run must repeat, and what an adapter is loaded by: fingerprint and system_prompt. Of the data the
    text, and which conversations are trained on, since there may be millions of images."""
    encoder = find_style_encoder(loaded.model)
    return {
        **{name: getattr(tuning, name) for name in FIXED},
        "projector_learning_rate is set": bool(tuning.projector_learning_rate),  # then it is a group of its own
        **training.fixed_on_resume(),
        "model": describe_tensors(loaded.model.state_dict()),
        # A quantised model is packed differently on each machine.
        "fingerprint": "" if getattr(loaded.model, "is_quantized", False) else fingerprint(loaded.model),
        "style_encoder": weights_digest(encoder.state_dict()) if encoder else "",
        "system_prompt": formatter.system,
        "chat_template": digest_of(formatter.processor.chat_template),
        "conversations": train_set.describe(),
    }


def print_summary(model: nn.Module, num_train: int, num_val: int) -> None:
    total = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(
        f"{num_train} conversations for training, {num_val} for validation; {trainable / 1e6:.2f} of "
        f"{total / 1e6:.2f} million parameters are trained"
    )


def finish(loaded: LoadedModel, trainer: LlavaTrainer, results: dict[str, Any], tuning: FineTuning, logs: Path) -> None:
    """Processor, results and the closing lines."""
    folder = Path(trainer.args.output_dir)
    loaded.processor.save_pretrained(folder)
    write_json(folder / "results.json", results)
    model = ["--model_id", folder]
    if isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel):
        model = ["--model_id", tuning.model_id, "--adapter", folder]
    command = ["llava/inference.py", *(["--demo"] if tuning.demo else model)]
    print_closing(trainer.reached(), folder, folder / "results.json", logs, [command])


if __name__ == "__main__":
    run_script(main, batch_hint("llava", MEMORY_FLAGS))
