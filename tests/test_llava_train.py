"""Fine-tuning of LLaVA: samples and labels, trainable weights, files of a run; adapters, merging, resume, processes."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import flags, flip_a_bit
from peft import PeftModel
from processes import start_script, torchrun, wait_until
from safetensors.torch import load_file
from tensorboard_logs import read_events
from tiny.llava import WRITERS, picture, write_conversations, write_llava

from common.text.conversations import read_conversations
from common.training.conversation_index import index_conversations
from common.training.skip_log import SkipLog
from llava import merge_lora, train
from llava.analyzer import LlavaAnalyzer
from llava.arguments import read_arguments
from llava.checkpoint import end_tokens, load_image_text_model
from llava.config import VICUNA_SYSTEM, read_values
from llava.dataset import ConversationCollator, ConversationDataset, ConversationTokenizer, tokenize
from llava.model import prepare_for_training
from llava.scoring_config import ScoringConfig
from llava.tokens import ChatFormatter


def dataset(path, formatter, ends=("</s>",), max_length=2048):
    """All conversations of a file."""
    index = index_conversations(path, path.parent / "cache")
    tokenizer = ConversationTokenizer(formatter, ends, max_length)
    logs = SkipLog(limit=1), SkipLog(limit=1)
    return ConversationDataset(index, path.parent, tokenizer, np.arange(len(index)), path.parent / "cache", *logs)


@pytest.mark.parametrize("name", WRITERS)
def test_labels_are_the_answers_alone(llava_folders, name, tmp_path):
    loaded = load_image_text_model(str(llava_folders[name]), device="cpu")
    formatter, ends = ChatFormatter(loaded.processor), end_tokens(loaded)
    items = list(map(dataset(write_conversations(tmp_path, 3), formatter, ends).__getitem__, range(3)))
    batch = ConversationCollator(loaded.processor)(items)
    for row, labels, (sample, _) in zip(batch["input_ids"], batch["labels"], items):
        kept = labels[labels >= 0]
        assert torch.equal(kept, row[labels >= 0])
        said = loaded.processor.tokenizer.decode(kept)
        answers = [turn.answer for turn in sample.conversation.turns]
        assert "".join(said.split()) == "".join("".join(f"{answer}{ends[0]}" for answer in answers).split())
    out = loaded.model(**batch)  # the model itself refuses a wrong number of image tokens
    assert out.loss.isfinite() and (batch["attention_mask"].diff() <= 0).all()
    rendered = formatter.prompt("What is this?")
    whole = loaded.processor(images=[picture(1, (52, 40))], text=[rendered], return_tensors="pt")["input_ids"][0]
    assert batch["input_ids"][1][: len(whole)].tolist() == whole.tolist()


def test_labels_give_the_loss_of_a_slow_loop(llava_folders, tmp_path):
    model, processor = load_image_text_model(str(llava_folders["llava"]), device="cpu")
    data = dataset(write_conversations(tmp_path, 2), ChatFormatter(processor))
    batch = ConversationCollator(processor)([data[0], data[1]])
    with torch.no_grad():
        out = model(**batch)
    losses = []
    for row in range(2):
        for place in range(1, batch["labels"].shape[1]):
            label = batch["labels"][row, place]
            if label >= 0:
                losses.append(-out.logits[row, place - 1].log_softmax(-1)[label])
    assert float(out.loss) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def test_end_tokens_are_appended_where_the_template_writes_none(llava_folders, tmp_path):
    """LLaVA 1.5's own template ends an answer with a space; a model trained so would never stop."""
    processor = load_image_text_model(str(llava_folders["llava"]), device="cpu").processor
    processor.chat_template = processor.chat_template.replace("{{ eos_token }}", "{{ ' ' }}")
    conversation = read_conversations(write_conversations(tmp_path, 1))[0][0]
    tokens, _ = tokenize(conversation, ChatFormatter(processor), ["</s>"])
    assert processor.tokenizer.decode([one for one in tokens.labels if one >= 0]) == " a red star 0</s> No</s>"


def test_turns_that_do_not_fit_are_dropped(llava_folders, tmp_path):
    formatter = ChatFormatter(load_image_text_model(str(llava_folders["llava"]), device="cpu").processor)
    path = write_conversations(tmp_path, 2)

    def check(max_length):
        data = dataset(path, formatter, max_length=max_length)
        samples = [item[0] for item in filter(None, map(data.read, range(2)))]
        lengths = [len(sample.tokens.input_ids) + 15 for sample in samples]  # 16 tokens an image
        assert [length for length in data.lengths() if length] == lengths
        return samples, lengths, data

    _, lengths, _ = check(2048)
    longest = lengths[0]
    samples, lengths, data = check(longest - 1)
    assert not data.skipped.skipped and max(lengths) < longest
    assert all(len(sample.conversation.turns) == 1 for sample in samples)
    reason = f"1 of its 2 turns do not fit into --max_length {longest - 1}"
    assert data.trimmed.skipped == dict.fromkeys(map(data.key, range(2)), reason)
    assert check(longest)[1][0] == longest
    samples, _, data = check(30)
    assert samples == [] and "max_length" in next(iter(data.skipped.skipped.values()))


@pytest.mark.parametrize("name", WRITERS)
def test_trainable_parameters(llava_folders, name):
    def trainable(**options):
        model = load_image_text_model(str(llava_folders[name]), device="cpu").model
        chosen = {"rank": 4, "alpha": 8, "dropout": 0.0, "train_vision_tower": False, "freeze_language_model": False}
        model = prepare_for_training(model, **{**chosen, **options})
        return {one for one, parameter in model.named_parameters() if parameter.requires_grad}

    lora = trainable()
    adapters = {one for one in lora if "lora_" in one}
    layers = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all("language_model" in one for one in adapters)
    assert {one.split(".lora_")[0].rsplit(".", 1)[1] for one in adapters} == layers
    assert lora - adapters and all("multi_modal_projector" in one for one in lora - adapters)
    assert any("vision_tower" in one for one in trainable(train_vision_tower=True))
    assert all("multi_modal_projector" in one for one in trainable(freeze_language_model=True))
    whole = trainable(rank=0)
    assert not any("vision_tower" in one for one in whole) and any("language_model" in one for one in whole)


def test_a_run_an_adapter_and_its_merging(llava_arguments, llava_folders, tmp_path, capsys):
    results = train.main([*llava_arguments, *flags(max_steps=8, eval_strategy="steps", eval_steps=8)])
    losses = [entry["loss"] for entry in results["train"] if "loss" in entry]
    assert len(losses) == 8 and losses[-1] < 0.9 * losses[0] and np.isfinite(results["eval_loss"])
    assert sum("eval_loss" in entry for entry in results["train"]) == 1  # that of the last step is not done twice
    run, base = tmp_path / "run", str(llava_folders["llava"])
    assert "million parameters are trained" in capsys.readouterr().out
    adapted = load_image_text_model(base, str(run), device="cpu")
    projector = "multi_modal_projector.linear_1.weight"
    saved = {one: value for one, value in load_file(run / "adapter_model.safetensors").items() if projector in one}
    before = load_image_text_model(base, device="cpu").model.get_parameter(f"model.{projector}")
    assert len(saved) == 1 and not torch.equal(next(iter(saved.values())), before)
    events = read_events(run / "logs", "llava")
    assert events.Tags()["images"] and any("validation/0" in tag for tag in events.Tags()["tensors"])
    options = flags(model_id=base, adapter=run, output_dir=tmp_path / "merged", precision="fp32", device="cpu")
    merged = load_image_text_model(str(merge_lora.main(options)), device="cpu")
    inputs = adapted.processor(images=[picture(1)], text=["<image> a star"], return_tensors="pt")
    with torch.no_grad():
        ours, plain = (one.model(**inputs).logits for one in (adapted, merged))
        untouched = load_image_text_model(base, device="cpu").model(**inputs).logits
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)
    assert (ours - untouched).abs().max() > 0.01
    with pytest.raises(ValueError, match="holds a model"):
        merge_lora.main(["--model_id", base, "--adapter", str(run), "--output_dir", str(tmp_path / "merged")])


def test_a_base_in_half_precision_trains_and_answers(llava_arguments, llava_folders, tmp_path):
    results = train.main([*llava_arguments, *flags(bf16="true", max_steps=2, eval_strategy="steps", eval_steps=1)])
    assert np.isfinite([entry["loss"] for entry in results["train"] if "loss" in entry]).tolist() == [True] * 2
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.float32}
    adapted = load_image_text_model(str(llava_folders["llava"]), str(tmp_path / "run"), device="cpu", precision="bf16")
    found = LlavaAnalyzer(loaded=adapted, scoring=ScoringConfig(description_tokens=3, analysis_tokens=3)).analyze_image(
        picture(0), "a star"
    )
    assert 1 <= found["expected_score"] <= 10


def test_inference_uses_the_system_prompt_of_training(llava_arguments, llava_folders, tmp_path):
    train.main([*llava_arguments, *flags(max_steps=1, val_split=0, system_prompt="Be brief.")])
    base, run, merged = str(llava_folders["llava"]), str(tmp_path / "run"), str(tmp_path / "merged")
    merge_lora.main(["--model_id", base, "--adapter", run, "--output_dir", merged, "--device", "cpu"])
    adapted = (base, run), (base, f"{run}/checkpoint-1"), (run,), (f"{run}/checkpoint-1",)  # its base is in its folder
    for folders in (*adapted, (merged,)):
        found = LlavaAnalyzer(*folders, device="cpu")
        assert found.formatter.prompt("Why?").startswith("Be brief.")
        assert isinstance(found.model, PeftModel) == (folders != (merged,))
    assert LlavaAnalyzer(base, device="cpu").formatter.system == VICUNA_SYSTEM
    assert LlavaAnalyzer(base, run, system_prompt="", device="cpu").formatter.system == ""


def test_an_adapter_of_another_model_is_refused(llava_arguments, tmp_path):
    train.main([*llava_arguments, *flags(max_steps=1, val_split=0)])
    for number, sizes in enumerate(({"seed": 1}, {"width": 64}, {"layers": 1})):
        other = write_llava(tmp_path / f"other{number}", **sizes)
        with pytest.raises(ValueError, match="another model") as caught:
            load_image_text_model(str(other), str(tmp_path / "run"), device="cpu")
        (tmp_path / "run" / "trained_on.json").rename(tmp_path / "kept.json")
        if "seed" not in sizes:  # without its facts the shapes still tell
            with pytest.raises(ValueError, match="another model") as caught:
                load_image_text_model(str(other), str(tmp_path / "run"), device="cpu")
        (tmp_path / "kept.json").rename(tmp_path / "run" / "trained_on.json")
        assert len(str(caught.value).splitlines()) == 1


def weights(folder):
    return load_file(Path(folder) / "adapter_model.safetensors")


def assert_equal(one, other, **tolerance):
    assert one.keys() == other.keys() and len(one) > 10
    for name in one:
        if tolerance:
            torch.testing.assert_close(one[name], other[name], **tolerance)
        else:
            assert torch.equal(one[name], other[name]), name


def test_a_new_run_keeps_the_older_one(llava_arguments, tmp_path):
    run = tmp_path / "run"
    for rank in ("2", "3"):
        train.main([*llava_arguments, *flags(max_steps=1, val_split=0, lora_rank=rank)])
    (older,) = [path.parent for path in run.glob("*/settings.json")]
    assert json.loads((older / "settings.json").read_text())["lora_rank"] == 2 and (older / "checkpoint-1").is_dir()
    assert json.loads((run / "settings.json").read_text())["lora_rank"] == 3 and (run / "checkpoint-1").is_dir()
    logs = run / "logs" / json.loads((run / "run.json").read_text())["name"]
    assert "train/loss" in json.loads((logs / "log.jsonl").read_text().splitlines()[0])
    assert (logs / "skipped.jsonl").is_file()


@pytest.mark.parametrize("order", ["random", pytest.param("group_by_length", marks=pytest.mark.slow)])
def test_killed_and_resumed_gives_the_same_weights(llava_arguments, tmp_path, order):
    changes = {"lora_dropout": 0.1, "max_steps": 12, "eval_strategy": "no", "train_sampling_strategy": order}
    more = [*llava_arguments, *flags(**changes)]
    train.main([*more, "--output_dir", str(tmp_path / "whole")])
    running = start_script("llava/train.py", more)
    wait_until(lambda: list((tmp_path / "run").glob("checkpoint-[3-9]/trainer_state.json")), running)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "adapter_model.safetensors").is_file()
    train.main([*more, "--resume_from_checkpoint", "true"])
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_a_whole_model_is_resumed(llava_arguments, tmp_path):
    """Its checkpoints have the names of published files, which are not those of the model in training."""
    whole = [*llava_arguments, *flags(lora_rank=0, max_steps=2, val_split=0)]
    train.main(whole)
    written = load_file(tmp_path / "run" / "model.safetensors")
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    train.main([*whole, "--resume_from_checkpoint", "true"])
    assert_equal(written, load_file(tmp_path / "run" / "model.safetensors"))


def test_a_bad_step_is_skipped_and_names_its_images(llava_arguments, tmp_path, second_step_is_bad, capsys):
    history = train.main(llava_arguments)["train"]
    assert max(entry.get("skipped_steps", 0) for entry in history) == 1
    shown = capsys.readouterr().err
    assert "skipped: step 2, the loss is not finite; its files: " in shown and ".png" in shown
    flip_a_bit(tmp_path / "run" / "checkpoint-4" / "optimizer.pt")
    train.main([*llava_arguments, "--resume_from_checkpoint", "true"])
    assert "checkpoint-4: optimizer.pt is not as it was written" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_like_one(llava_arguments, tmp_path):
    more = [*llava_arguments, *flags(val_split=0, seed=3)]  # 12 samples: whole batches on both sides
    train.main([*more, "--output_dir", str(tmp_path / "one")])
    torchrun("llava/train.py", [*more, "--per_device_train_batch_size", "2", "--ddp_backend", "gloo"])
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "run"), atol=2e-4, rtol=1e-3)


def test_mistakes_are_one_line(llava_arguments, tmp_path):
    broken = str(write_conversations(tmp_path / "broken"))
    (tmp_path / "broken" / "0.png").write_bytes(b"no image")
    mistakes = {
        "1 of 12 samples cannot be used, more than MAX_SKIPPED 8%": ["--data", broken, "--max_skipped", "0.08"],
        "did you mean --learning_rate": ["--learning_rat", "1"],
        "--data": ["--data", ""],
        "no such file": ["--data", "x.json"],
        "no valid checkpoint": ["--resume_from_checkpoint", "true"],
        "bitsandbytes": ["--bits", "4"],
        "val_split": ["--val_split", "1.5"],
        "nowhere": ["--resume_from_checkpoint", "nowhere"],
    }
    for words, given in mistakes.items():
        with pytest.raises((ValueError, OSError), match=words) as caught:
            train.main([*llava_arguments, *given])
        assert len(str(caught.value).splitlines()) == 1
    config = tmp_path / "mine.json"
    config.write_text('{"lora_rank": 7, "learning_rate": 0.5, "weight_decay": 0.25}')
    tuning, training = read_arguments([*llava_arguments, "--config", str(config)])
    assert (tuning.lora_rank, training.learning_rate, training.weight_decay) == (4, 0.01, 0.25)
    config.write_text('{"lora_rnak": 7}')
    with pytest.raises(ValueError, match="lora_rank"):
        read_values(["--config", str(config)])


def test_the_projector_has_a_learning_rate_of_its_own(llava_arguments, monkeypatch):
    made = []
    real = train.LlavaTrainer.create_optimizer
    monkeypatch.setattr(
        train.LlavaTrainer, "create_optimizer", lambda self, *given: made.append(real(self, *given)) or made[-1]
    )
    changes = {"max_steps": 1, "projector_learning_rate": 0.002, "lr_scheduler_type": "constant"}
    train.main([*llava_arguments, *flags(**changes, train_sampling_strategy="group_by_length")])
    rates = {round(group["lr"], 6): len(group["params"]) for group in made[0].param_groups if group["params"]}
    assert set(rates) == {0.01, 0.002}
