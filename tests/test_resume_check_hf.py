"""Resuming another run by Hugging Face's Trainer: refused before anything is written, or what the run says is done."""

import json
import shutil

import pytest
import torch
from conftest import flags
from processes import torchrun
from safetensors.torch import load_file, save_file
from test_hf_trainer import make
from test_resume_check import refused
from tiny.llava import write_conversations, write_llava
from tiny.vitp import vitp_flags

import vitp.train
from common.training.hf_trainer import find_resume_checkpoint
from common.training.resume_state import write_checksums
from common.training.trained_on import TRAINED_ON
from llava import merge_lora
from llava import train as train_llava
from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import load_image_text_model

SAMPLES = "per_device_train_batch_size * gradient_accumulation_steps * processes"


def steps(trainer) -> list[int]:
    return [entry["step"] for entry in trainer.state.log_history if "loss" in entry]


def test_rate_and_weight_decay_are_those_of_the_resumed_run(tmp_path):
    """transformers 28867: Trainer continues with the checkpoint's."""
    make(tmp_path, []).train()
    resumed = make(tmp_path, [])
    resumed.args.learning_rate, resumed.args.weight_decay = 0.5, 0.25
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    rates = {entry["step"]: entry["learning_rate"] for entry in resumed.state.log_history if "loss" in entry}
    assert rates[4] == pytest.approx(0.01 * 9 / 12) and rates[5] == pytest.approx(0.5 * 8 / 12)
    assert {group["weight_decay"] for group in resumed.optimizer.param_groups} == {0.25, 0.0}


@pytest.mark.parametrize("max_steps", [4, 2])
def test_a_run_at_its_end_takes_no_further_step(tmp_path, max_steps):
    """verl 6232, Lightning 1922: each restart adds a step, with a rate beyond the end of its schedule."""
    make(tmp_path, [], max_steps=4).train()
    before = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    again = make(tmp_path, [], max_steps=max_steps)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert steps(again) == [1, 2, 3, 4] and again.state.global_step == 4
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in before.items())


def test_a_batch_may_be_divided_otherwise(tmp_path):
    """transformers 43708: as many samples a step, from one device or two, are as many steps."""
    whole = make(tmp_path / "whole", [])
    whole.train()
    make(tmp_path / "run", []).train()
    resumed = make(tmp_path / "run", [], accumulation=2)
    resumed.args.per_device_train_batch_size = 2
    resumed._train_batch_size = 2
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert resumed.state.global_step == whole.state.global_step == 12


def test_a_checkpoint_of_weights_alone_is_refused(tmp_path):
    """Trainer would start optimizer and warm-up anew."""
    make(tmp_path, [], save_only_model=True).train()
    for requested in ("true", str(tmp_path / "checkpoint-2")):
        with pytest.raises(ValueError, match="checkpoint-[0-9]+: holds weights alone, by --save_only_model"):
            find_resume_checkpoint(tmp_path, requested)


def test_random_states_of_another_number_of_processes(tmp_path, capsys):
    make(tmp_path, []).train()
    state = tmp_path / "checkpoint-4"
    for rank in (0, 1):
        shutil.copy(state / "rng_state.pth", state / f"rng_state_{rank}.pth")
    (state / "rng_state.pth").unlink()
    make(tmp_path, []).train(resume_from_checkpoint=str(state))
    assert "checkpoint-4: saved by 2 process(es), resumed by 1" in capsys.readouterr().err


def test_another_run_of_llava_is_refused(llava_arguments, tmp_path):
    train_llava.main([*llava_arguments, *flags(max_steps=2, num_train_epochs=9)])
    more = [*llava_arguments, *flags(max_steps=3, resume_from_checkpoint=True)]
    assert TRAINED_ON in {path.name for path in (tmp_path / "run" / "checkpoint-2").iterdir()}
    changes = {"lora_rank": 2, "lora_alpha": 4, "system_prompt": "Be brief.", "val_split": 0.5}
    for name, value in {**changes, "seed": 3, "optim": "sgd", "freeze_language_model": True}.items():
        shown = refused(train_llava.main, [*more, *flags(**{name: value})], tmp_path)
        assert f"checkpoint-2: is of a run that differs: {name} was " in shown and "resume_from_checkpoint" in shown
    shown = refused(train_llava.main, [*more, *flags(per_device_train_batch_size=8)], tmp_path)
    assert f"{SAMPLES} was 4, now 8" in shown
    data = write_conversations(tmp_path / "other", 12)
    data.write_text(data.read_text().replace("Sure?", "Really?"))
    assert "conversations was " in refused(train_llava.main, [*more, *flags(data=data)], tmp_path)
    for number, sizes in enumerate(({"seed": 1}, {"layers": 1})):
        other = write_llava(tmp_path / f"model{number}", **sizes)
        assert "fingerprint was" in refused(train_llava.main, [*more, *flags(model_id=other)], tmp_path)
    changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 0.001}
    shown = refused(train_llava.main, [*more, *flags(projector_learning_rate=0)], tmp_path)
    assert "projector_learning_rate is set was true, now false" in shown
    changes["projector_learning_rate"] = 0.003
    train_llava.main([*more, *flags(**changes, logging_steps=2, eval_strategy="no", num_train_epochs=5)])
    assert (tmp_path / "run" / "checkpoint-3").is_dir()


def test_a_checkpoint_of_a_running_llava_knows_its_base_and_prompt(llava_arguments, llava_folders, tmp_path):
    """Copied alone, as people do before a run has ended."""
    train_llava.main([*llava_arguments, *flags(max_steps=1, val_split=0, system_prompt="Be brief.")])
    copied = shutil.copytree(tmp_path / "run" / "checkpoint-1", tmp_path / "copied")
    other = write_llava(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="copied: is an adapter for another model .* other weights"):
        load_image_text_model(str(other), str(copied), device="cpu")
    base, merged = str(llava_folders["llava"]), str(tmp_path / "merged")
    assert LlavaAnalyzer(base, str(copied), device="cpu").formatter.prompt("Why?").startswith("Be brief.")
    merge_lora.main(["--model_id", base, "--adapter", str(copied), "--output_dir", merged, "--device", "cpu"])
    assert LlavaAnalyzer(merged, device="cpu").formatter.prompt("Why?").startswith("Be brief.")


def test_an_adapter_with_other_tensors_is_not_resumed(llava_arguments, tmp_path):
    """lerobot 3459: peft warns, and some of the adapter starts anew."""
    train_llava.main([*llava_arguments, *flags(max_steps=1, val_split=0)])
    path = tmp_path / "run" / "checkpoint-1" / "adapter_model.safetensors"
    kept = load_file(path)
    kept.pop(next(name for name in kept if "lora_B" in name))
    save_file(kept, path)
    write_checksums(path.parent)
    with pytest.raises(ValueError, match="adapter_model.safetensors: not weights of this run's adapter; 1 tensors"):
        train_llava.main([*llava_arguments, *flags(val_split=0, resume_from_checkpoint=True)])


def test_another_run_of_vitp_is_refused(vitp_parts, tmp_path):
    command = vitp_flags(vitp_parts, tmp_path / "run", max_steps=2, save_steps=1, use_llm_lora=4)
    vitp.train.main(command)
    more = [*command, *flags(resume_from_checkpoint=True)]
    changes = {"use_llm_lora": 8, "max_dynamic_patch": 2, "max_seq_length": 300, "packing": True, "freeze_mlp": True}
    for name, value in changes.items():
        shown = refused(vitp.train.main, [*more, *flags(**{name: value})], tmp_path)
        assert f"checkpoint-2: is of a run that differs: {name} was " in shown
    shown = refused(vitp.train.main, [*more, *flags(gradient_accumulation_steps=4)], tmp_path)
    assert f"{SAMPLES} was " in shown
    meta = json.loads((vitp_parts / "data" / "meta.json").read_text())
    for entry in meta.values():
        entry["repeat_time"] = 2
    (vitp_parts / "data" / "twice.json").write_text(json.dumps(meta))
    shown = refused(vitp.train.main, [*more, *flags(meta_path=vitp_parts / "data" / "twice.json")], tmp_path)
    assert "conversations was " in shown
    vitp.train.main([*more, *flags(max_steps=3, learning_rate=1e-4, TMAug_ratio=None)])
    assert (tmp_path / "run" / "checkpoint-3").is_dir()


@pytest.mark.slow
def test_a_run_of_one_process_is_continued_by_two(vitp_parts, tmp_path):
    """As long as a step has as many samples; each process masks image tokens by a generator of its own."""
    one = vitp_flags(vitp_parts, tmp_path / "run", max_steps=2, save_steps=1, TMAug_mode="paper")
    vitp.train.main([*one, *flags(per_device_train_batch_size=4, gradient_accumulation_steps=1)])
    two = [*one, *flags(max_steps=4, resume_from_checkpoint=True, ddp_backend="gloo", gradient_accumulation_steps=1)]
    said = torchrun("vitp/train.py", [*two, *flags(per_device_train_batch_size=2)])
    assert "checkpoint-2: saved by 1 process(es), resumed by 2" in said
    assert (tmp_path / "run" / "checkpoint-4" / "token_masking_1.pt").is_file()
