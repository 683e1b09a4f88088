"""The training script: what it trains, leaves, refuses, and that it goes on exactly where it was stopped."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
from conftest import flags
from safetensors.torch import load_file
from tensorboard_logs import read_events
from tiny.vitp import LANGUAGE_PREFIX, PROJECTOR_PREFIX, VISION_PREFIX, internvl_folder, same, vitp_flags, weights
from transformers import AutoModelForImageTextToText, AutoProcessor

from retrieval import compare_encoders
from vitp import demo, evaluate, inference
from vitp.chat_template import prepare_tokenizer
from vitp.inference import VQAPredictor
from vitp.train import main


def test_it_trains_and_leaves_a_folder_for_transformers(vitp_parts, tmp_path, capsys):
    result = main(
        vitp_flags(
            vitp_parts, tmp_path, max_steps=12, learning_rate=1e-2, eval_meta_path=vitp_parts / "data" / "meta.json"
        )
    )
    shown = capsys.readouterr().out
    assert result["steps"] == 12 and "of 75% of the samples, 30% are zeroed" in shown
    _, command, *question = shlex.split(re.search("next (.*)", shown)[1])
    assert command == "vitp/inference.py" and inference.main([*question, "--max_new_tokens", "2"])["images"]
    log = [json.loads(line) for path in tmp_path.glob("logs/*/log.jsonl") for line in path.read_text().splitlines()]
    read_events(tmp_path / "logs", "vitp")
    losses = [entry["train/loss"] for entry in log if "train/loss" in entry]
    assert len(losses) >= 12 and losses[11] < losses[0] - 1
    assert any("eval/loss" in entry for entry in log) and result["eval_loss"] < losses[0]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["TMAug_mode"] == "guide" and settings["max_steps"] == 12
    assert json.loads((tmp_path / "run.json").read_text())["command"]

    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    answerer = VQAPredictor(str(tmp_path), torch.device("cpu"))
    from PIL import Image

    image = Image.open(vitp_parts / "data" / "images" / "scene_00000.png").convert("RGB")
    question = "What do you see?"
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    ours = answerer([([image], question)], max_new_tokens=8)[0]
    assert processor.decode(written, skip_special_tokens=True).strip() == ours
    two = answerer([([image], question), ([image], "And a longer question about this?")], max_new_tokens=8)
    assert two[0] == ours  # padding on the left changes nothing
    path = str(vitp_parts / "data" / "images" / "scene_00000.png")
    asked = [path, question, "--model_name_or_path", str(tmp_path), "--max_new_tokens", "8", "--device", "cpu"]
    assert inference.main(asked)["answer"] == ours  # in the template of the folder
    for wrong in (asked[1:], [path, " ", *asked[2:]]):
        with pytest.raises(ValueError, match="expected at least one image and then a question"):
            inference.main(wrong)


@pytest.mark.parametrize(
    "given, moves",
    [
        (["--freeze_llm"], {VISION_PREFIX, PROJECTOR_PREFIX}),
        (["--freeze_llm", "True", "--freeze_mlp"], {VISION_PREFIX}),
        (["--freeze_backbone", "true"], {PROJECTOR_PREFIX, LANGUAGE_PREFIX}),
        (["--freeze_backbone", "False"], {VISION_PREFIX, PROJECTOR_PREFIX, LANGUAGE_PREFIX}),
    ],
)
def test_frozen_parts_stay(vitp_parts, tmp_path, given, moves):
    main([*vitp_flags(vitp_parts, tmp_path / "before", learning_rate=0, max_steps=1, weight_decay=0), *given])
    main([*vitp_flags(vitp_parts, tmp_path / "after", max_steps=2), *given])
    before, after = weights(tmp_path / "before"), weights(tmp_path / "after")
    for prefix in (VISION_PREFIX, PROJECTOR_PREFIX, LANGUAGE_PREFIX):
        names = [name for name in before if name.startswith(prefix)]
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert bool(moved) == (prefix in moves) and (len(moved) > 0.9 * len(names) or prefix not in moves)


def test_a_pretrained_encoder_has_a_rate_of_its_own_and_keeps_its_statistics(vitp_parts, tmp_path):
    theirs = timm.create_model("test_efficientnet", num_classes=0)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    settings = {
        "vision_config": f"test_efficientnet:{tmp_path / 'weights.pth'}",
        "force_image_size": 64,
        "down_sample_ratio": 1,
        "freeze_batch_norm": True,
        "lr_scheduler_type": "constant",
        "weight_decay": 0,
    }
    changes = {"max_steps": 2, "save_steps": 1, "vision_learning_rate": 1e-9}
    main(vitp_flags(vitp_parts, tmp_path / "run", **settings, **changes))
    found, before = weights(tmp_path / "run"), theirs.state_dict()
    moves = {name: (found[f"{VISION_PREFIX}timm_model.{name}"] - before[name]).abs().max() for name in before}
    assert 0 < max(moves.values()) < 1e-8
    assert not any(moves[name] for name, _ in theirs.named_buffers())
    changes = {"max_steps": 3, "vision_learning_rate": 0, "resume_from_checkpoint": True}
    with pytest.raises(ValueError, match="vision_learning_rate is set was true, now false"):
        main(vitp_flags(vitp_parts, tmp_path / "run", **settings, **changes))


def test_a_bad_step_is_left_out_and_names_its_lines(vitp_parts, tmp_path, second_step_is_bad, capsys):
    main(vitp_flags(vitp_parts, tmp_path, packing=True, per_device_train_batch_size=1))
    shown = capsys.readouterr().err
    assert "skipped: step 2, the loss is not finite; its files: " in shown
    assert "conversations.jsonl:" in shown and ".png" in shown
    entries = [json.loads(line) for path in tmp_path.glob("logs/*/log.jsonl") for line in path.open()]
    assert max(entry.get("train/skipped_steps", 0) for entry in entries) == 1


@pytest.mark.parametrize(
    "ranks, held",
    [
        ({"use_llm_lora": 4}, {VISION_PREFIX, PROJECTOR_PREFIX}),
        ({"use_backbone_lora": 2}, {PROJECTOR_PREFIX, LANGUAGE_PREFIX}),
        ({"use_llm_lora": 4, "use_backbone_lora": 2, "freeze_mlp": True}, set()),
    ],
    ids=["llm", "backbone", "both"],
)
def test_lora(vitp_parts, tmp_path, ranks, held):
    """The checkpoint holds the additions and all that learns whole; the output folder is a model with them added."""
    from peft import PeftModel

    from vitp.checkpoint import load_model

    main(vitp_flags(vitp_parts, tmp_path / "start", max_steps=1, learning_rate=0, weight_decay=0))
    command = vitp_flags(vitp_parts, tmp_path / "lora", save_steps=2, learning_rate=1e-2, **ranks)
    main(command)
    start, end = weights(tmp_path / "start"), weights(tmp_path / "lora")
    adapter = load_file(tmp_path / "lora" / "checkpoint-4" / "adapter_model.safetensors")
    for prefix, flag in ((VISION_PREFIX, "use_backbone_lora"), (LANGUAGE_PREFIX, "use_llm_lora")):
        added = {name for name in adapter if prefix in name and ".lora_A." in name}
        assert bool(added) == (flag in ranks) and all(adapter[name].shape[0] == ranks[flag] for name in added)
        changed = [name for name in start if name.startswith(prefix) and not torch.equal(start[name], end[name])]
        assert changed and (flag not in ranks or all("proj" in name or "mlp" in name for name in changed))
    for prefix in (VISION_PREFIX, PROJECTOR_PREFIX, LANGUAGE_PREFIX):
        whole = [name for name in start if name.startswith(prefix)]
        assert (prefix in held) == all(f"base_model.model.{name}" in adapter for name in whole)

    batch = {"input_ids": torch.arange(20)[None], "labels": torch.arange(20)[None]}
    with_adapter = PeftModel.from_pretrained(load_model(tmp_path / "start"), tmp_path / "lora" / "checkpoint-4").eval()
    assert torch.allclose(with_adapter(**batch).loss, load_model(tmp_path / "lora").eval()(**batch).loss, atol=1e-4)

    (tmp_path / "lora" / "model.safetensors").unlink()
    main([*command, "--resume_from_checkpoint", str(tmp_path / "lora" / "checkpoint-2")])
    again = weights(tmp_path / "lora")
    assert all(torch.allclose(end[name], again[name], atol=1e-6) for name in end)


def test_internvls_own_folder_is_trained(vitp_parts, tmp_path):
    internvl_folder(tmp_path / "internvl")
    tokenizer = demo.train_tokenizer(["user assistant system"], 300)
    prepare_tokenizer(tokenizer)
    tokenizer.save_pretrained(tmp_path / "internvl")
    more = {"vision_config": None, "llm": None, "model_name_or_path": tmp_path / "internvl", "max_seq_length": 2000}
    for name, extra in (("own", {}), ("larger", {"force_image_size": 42})):
        result = main(vitp_flags(vitp_parts, tmp_path / name, max_steps=2, **more, **extra))
        assert result["steps"] == 2
    assert weights(tmp_path / "larger")[f"{VISION_PREFIX}embeddings.position_embeddings"].shape[1] == 37
    with pytest.raises(ValueError, match="--force_image_size 44: .* multiple of 14; the nearest is 42"):
        main(vitp_flags(vitp_parts, tmp_path / "refused", force_image_size=44, **more))


def test_checkpointing_and_evaluation_flags(vitp_parts, tmp_path):
    main(vitp_flags(vitp_parts, tmp_path / "plain", max_steps=2))
    more = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    more |= {"eval_meta_path": vitp_parts / "data" / "meta.json", "activation_checkpointing": True}
    done = main(vitp_flags(vitp_parts, tmp_path / "checked", max_steps=2, **more))
    assert "eval_loss" in done
    plain, checked = weights(tmp_path / "plain"), weights(tmp_path / "checked" / "checkpoint-2")
    assert all(torch.allclose(plain[name], checked[name], atol=1e-5) for name in plain)
    best = json.loads((tmp_path / "checked" / "trainer_state.json").read_text())["best_model_checkpoint"]
    assert same(weights(tmp_path / "checked"), weights(tmp_path / "checked" / os.path.basename(best)))


def test_demo(tmp_path, monkeypatch, capsys):
    """All of it, smaller: it runs, and its scores are those of its answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "DRAWINGS", {"train": 24, "test": 4, "retrieval": 96})
    result = main(["--demo", "--max_steps", "3", "--use_cpu", "--per_device_train_batch_size", "4"])
    answers = json.loads((tmp_path / demo.OUTPUT / "answers.json").read_text())["answers"]
    assert 0 <= result["accuracy"] <= 1 and sum(one["count"] for one in result["questions"].values()) == len(answers)
    drawings = {one["name"]: one for one in json.loads((demo.FOLDER / "test" / "scenes.json").read_text())}

    def right(row):
        if row["question"] != demo.QUESTIONS["description"]:
            return row["answer"] == row["reference"]
        facts = drawings[row["images"][0].removeprefix(f"{demo.FOLDER / 'test'}/")]["facts"]
        answer, reference = (re.sub(r"\W+", " ", f" {row[name]} ") for name in ("answer", "reference"))
        assert all(f" {fact} " in reference for fact in facts)
        return sum(f" {fact} " in answer for fact in facts) / len(facts)

    assert [row["score"] for row in answers] == pytest.approx([float(right(row)) for row in answers])
    assert result["accuracy"] == pytest.approx(sum(map(right, answers)) / len(answers))
    shown = capsys.readouterr().out
    assert "unseen drawings" in shown and f"right: {sum(right(row) == 1 for row in answers)} of {len(answers)}" in shown
    again = evaluate.main(
        flags(
            model_name_or_path=demo.OUTPUT,
            data=demo.FOLDER / "test" / demo.CONVERSATIONS,
            max_new_tokens=40,
            device="cpu",
            output="again.json",
        )
    )
    assert again["accuracy"] == pytest.approx(result["accuracy"]) and "question_only" not in again
    assert json.loads(Path("again.json").read_text())["answers"][0].keys() == answers[0].keys()
    sides = [f"--{side}_dir={demo.FOLDER / 'retrieval' / side}" for side in ("query", "gallery")]
    encoders = ["--encoders", f"untrained={demo.UNTRAINED}", f"trained={demo.OUTPUT}"]
    scores = compare_encoders.main([*sides, "--output_dir", str(tmp_path / "scores"), *encoders])
    untrained, trained = (scores[name] for name in ("untrained", "trained"))
    assert untrained["queries"] == trained["queries"] == 32 and untrained["gallery"] == 64
    before, after = weights(demo.UNTRAINED), weights(tmp_path / demo.OUTPUT)
    assert before.keys() == after.keys() and not same(before, after)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"meta_path": None}, "--meta_path is missing"),
        ({"llm": None}, "give --model_name_or_path, or --vision_config and --llm"),
        ({"model_name_or_path": "somewhere"}, "give --model_name_or_path, or"),
        ({"force_image_size": 40}, "multiple of 16; the nearest is (32|48)"),
        ({"down_sample_ratio": 0.4}, "--down_sample_ratio 0.4: expected 1, 0.5"),
        ({"meta_path": "gone.json"}, "gone.json: no such file"),
        ({"TMAug_prob": 2}, "--TMAug_prob 2"),
        ({"TMAug_mode": "mae"}, "--TMAug_mode.*'mae'"),
        ({"drop_path_rate": 1}, "--drop_path_rate 1"),
        ({"conv_style": "vicuna"}, "conv_style 'vicuna'"),
        ({"eval_strategy": "steps"}, "needs --eval_meta_path"),
        ({"resume_from_checkpoint": "true"}, "checkpoint-N to resume from"),
        ({"resume_from_checkpoint": "gone"}, "gone: .*resume_from_checkpoint"),
        ({"use_llm_lora": 4, "freeze_llm": True}, "--use_llm_lora"),
        ({"freeze_llm": True, "freeze_mlp": True, "freeze_backbone": True}, "frozen"),
        ({"max_dynamic_pach": 3}, "unknown flag '--max_dynamic_pach'; did you mean --max_dynamic_patch"),
        ({"max_steps": "many"}, "--max_steps: 'many', expected INT"),
        (
            {"deepspeed": "zero_stage9.json"},
            "zero_stage9.json: no such file, nor one of those shipped: .*zero_stage2.json",
        ),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor"),
        ({"min_dynamic_patch": 3}, "max_dynamic_patch"),
    ],
)
def test_mistakes_are_one_clear_line(vitp_parts, tmp_path, change, message):
    with pytest.raises((ValueError, OSError), match=message):
        main(vitp_flags(vitp_parts, tmp_path / "output", **change))
