"""What the ViTP guide says to type: launching, data, extraction of the vision encoder."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from processes import SINGLE_THREAD
from safetensors.torch import load_file, save_file
from tiny.blip2 import CONFIG, TEXTS
from tiny.clip import write_clip
from tiny.llava import write_llava
from tiny.vitp import same, tiny_model
from transformers import InternVLVisionConfig, InternVLVisionModel

from blip2_gated.backbone import build_blip2, fit_config, make_tokenizer, read_blip2
from common.models.weight_files import find_weights
from common.training.conversation_index import index_conversations
from llava.checkpoint import load_image_text_model
from retrieval.encoders import open_encoder
from vitp import extract_vit, json2jsonl
from vitp.arguments import _shipped, read_arguments
from vitp.checkpoint import load_model
from vitp.meta_file import read_meta
from vitp.vision_encoder import read_vit

SCRIPT = """#!/bin/bash
set -x

GPUS=${GPUS:-8}
BATCH_SIZE=${BATCH_SIZE:-8}
PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}
GRADIENT_ACC=$((BATCH_SIZE / PER_DEVICE_BATCH_SIZE / GPUS))
DATA_PATH="ViTP_configs/ft_data_custom.json"

torchrun --nproc_per_node=${GPUS} \\
  internvl/train/internvl_chat_finetune.py \\
  --model_name_or_path "models/InternVL2_5-1B" \\
  --meta_path ${DATA_PATH} \\
  --max_steps 8000 \\
  --learning_rate 2e-5 \\
  --per_device_train_batch_size ${PER_DEVICE_BATCH_SIZE} \\
  --gradient_accumulation_steps ${GRADIENT_ACC} \\
  --output_dir "./work_dirs/my_custom_vitp" \\
  --force_image_size 448 \\
  --max_dynamic_patch 6 \\
  --TMAug_prob 0.75 \\
  --drop_path_rate 0.1 \\
  --deepspeed zero_stage2.json \\
  --save_steps 500
"""
META = {
    "my_custom_dataset": {
        "root": "data/images/my_dataset/",
        "annotation": "data/annotations/my_dataset.jsonl",
        "data_augment": False,
        "repeat_time": 1,
        "length": 10000,
        "max_dynamic_patch": 12,
    }
}
LINES = [
    {
        "image": f"image{number}.jpg",
        "conversations": [{"from": "human", "value": "描述这张图片<image>"}, {"from": "gpt", "value": "城市街景"}],
    }
    for number in (1, 2)
]


@pytest.fixture
def repository(tmp_path):
    """A folder laid out as the guide says, with a torchrun that prints its command line."""
    (tmp_path / "vitp" / "ViTP_configs").mkdir(parents=True)
    (tmp_path / "vitp" / "train.py").touch()
    (tmp_path / "vitp" / "ViTP_configs" / "ft_data_custom.json").write_text(json.dumps(META))
    (tmp_path / "models" / "InternVL2_5-1B").mkdir(parents=True)
    (tmp_path / "models" / "InternVL2_5-1B" / "config.json").write_text("{}")
    (tmp_path / "data" / "images" / "my_dataset").mkdir(parents=True)
    (tmp_path / "data" / "annotations").mkdir()
    jsonl = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES)
    (tmp_path / "data" / "annotations" / "my_dataset.jsonl").write_text(jsonl, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "torchrun").write_text('#!/bin/sh\necho torchrun "$@"\n')
    (tmp_path / "bin" / "torchrun").chmod(0o755)
    return tmp_path


def launch(repository, script, **settings):
    """cd vitp && sh ViTP_configs/InternVL_1b_custom.sh -> the command line that it starts."""
    (repository / "vitp" / "ViTP_configs" / "InternVL_1b_custom.sh").write_text(script)
    done = subprocess.run(
        ["sh", "ViTP_configs/InternVL_1b_custom.sh"],
        cwd=repository / "vitp",
        env={"PATH": f"{repository / 'bin'}:{os.environ['PATH']}", **settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1])


def test_the_launch_script_of_the_guide(repository):
    words = launch(repository, SCRIPT, GPUS="8", BATCH_SIZE="8")
    assert words[1] == "--nproc_per_node=8" and (ROOT / "vitp" / words[2]).resolve() == ROOT / "vitp" / "train.py"
    engine = words.index("--deepspeed")  # which need not be installed here
    model, data, run = read_arguments(words[3:engine] + words[engine + 2 :])
    assert (run.per_device_train_batch_size, run.gradient_accumulation_steps, run.max_steps) == (1, 1, 8000)
    assert run.do_train and model.TMAug_prob == 0.75 and data.dynamic_image_size and data.conv_style == "internvl2_5"


@pytest.mark.parametrize("name", ["zero_stage2.json", "zero_stage2_config.json"])
def test_names_of_engine_settings(name):
    assert _shipped(name) == str(ROOT / "vitp/configs/zero_stage2.json")
    with pytest.raises(FileNotFoundError, match=r"zero_stage9.json: no such file.*zero_stage2.json"):
        _shipped("zero_stage9.json")


def test_a_copy_of_our_script_with_another_data_path(repository):
    ours = (ROOT / "vitp/ViTP_configs/InternVL_1b_remote_sensing_ViTP.sh").read_text()
    line = next(line for line in ours.splitlines() if line.startswith("DATA_PATH="))
    edited = ours.replace(line, 'DATA_PATH="ViTP_configs/ft_data_custom.json"', 1)
    words = launch(repository, edited, GPUS="8", BATCH_SIZE="8")
    _, data, run = read_arguments(words[5:])
    assert words[:4] == ["torchrun", "--standalone", "--nproc_per_node", "8"]
    assert data.meta_path == "ViTP_configs/ft_data_custom.json" and run.output_dir == "work_dirs/InternVL_1b_custom"
    assert (run.per_device_train_batch_size, run.gradient_accumulation_steps) == (1, 1)
    assert words[words.index("--model_name_or_path") + 1] == str(repository / "models/InternVL2_5-1B")


def test_the_parameters_of_the_guide_and_those_of_vitps_own_script():
    guide = """--max_steps 8000 --learning_rate 2e-5 --max_dynamic_patch 6 --force_image_size 448 --TMAug_prob 0.75
        --drop_path_rate 0.1 --per_device_train_batch_size 1 --gradient_accumulation_steps 8"""
    script = """--freeze_llm False --freeze_mlp False --max_seq_length 4096 --conv_style internvl2_5 --bf16 False
        --evaluation_strategy no --save_strategy steps --save_total_limit 20 --weight_decay 0.01 --warmup_ratio 0.2
        --lr_scheduler_type cosine --logging_steps 1 --do_train True --grad_checkpoint True --group_by_length False
        --dynamic_image_size True --use_thumbnail True --report_to tensorboard"""
    model, data, run = read_arguments(["--meta_path", "meta.json", *guide.split(), *script.split()])
    assert (run.gradient_accumulation_steps, run.warmup_steps, run.eval_strategy) == (8, 0.2, "no")
    assert run.gradient_checkpointing and not model.freeze_llm and data.use_thumbnail
    with pytest.raises(ValueError, match="'--ps_version': the model's own config.json decides that"):
        read_arguments(["--meta_path", "meta.json", "--ps_version", "v2"])


@pytest.mark.parametrize("flag, frozen", [(["--freeze_llm"], True), (["--freeze_llm", "False"], False)])
def test_freezing_with_and_without_a_value(flag, frozen):
    assert read_arguments([*flag, "--meta_path", "meta.json"])[0].freeze_llm is frozen


def test_data_at_the_root_of_the_repository(repository, monkeypatch):
    monkeypatch.chdir(repository / "vitp")
    monkeypatch.setattr("common.cli.paths.ROOT", repository)
    (source,) = read_meta("ViTP_configs/ft_data_custom.json")
    assert (source.length, source.repeat_time, source.max_tiles, source.data_augment) == (10000, 1, 12, False)
    assert source.root == repository / "data/images/my_dataset"
    index = index_conversations(source.annotation, repository / "cache")
    assert len(index) == 2 and index.skipped == {}


def test_links_under_the_names_of_vitps_own_repository():
    for link, target in (
        ("tools/extract_vit.py", "extract_vit.py"),
        ("tools/json2jsonl.py", "json2jsonl.py"),
        ("internvl/train/internvl_chat_finetune.py", "train.py"),
        ("ViTP_configs/InternVL_1b_remote_sensing_ViTP.sh", "shell/pretrain.sh"),
        ("requirements/internvl_chat.txt", "../requirements.txt"),
    ):
        assert (ROOT / "vitp" / link).resolve() == (ROOT / "vitp" / target).resolve()


@pytest.fixture
def run(tmp_path):
    """A run of Trainer with one checkpoint, and the state of its vision encoder."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "run" / "checkpoint-8000")
    return tmp_path / "run", model.model.vision_tower.state_dict()


def test_extraction_from_vitps_folder(run, tmp_path):
    folder, _ = run
    command = [sys.executable, "tools/extract_vit.py"]
    command += ["--checkpoint", str(folder / "checkpoint-8000/pytorch_model.bin")]
    command += ["--output", str(tmp_path / "vit_weights/vitp_vit.pth")]
    done = subprocess.run(command, cwd=ROOT / "vitp", env=SINGLE_THREAD, capture_output=True, text=True)
    assert done.returncode == 0 and "encoder.layers.0.attn.qkv.weight" in torch.load(command[-1])
    assert "pytorch_model.bin: no such file; using model.safetensors in its place" in done.stderr


def sharded(folder, suffix, save):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save(weights, folder / f"shard{suffix}")
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    index = {"weight_map": dict.fromkeys(weights, f"shard{suffix}")}
    (folder / f"{stem}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "written, named",
    [
        ("model.safetensors", "pytorch_model.bin.index.json"),
        ("model.safetensors.index.json", "pytorch_model.bin"),
        ("pytorch_model.bin.index.json", "model.safetensors"),
    ],
)
def test_every_loader_takes_what_lies_in_the_place_of_a_missing_name(run, written, named, capsys):
    folder, expected = run[0] / "checkpoint-8000", run[1]
    if written.endswith(".index.json"):
        sharded(folder, *((".safetensors", save_file) if "safetensors" in written else (".bin", torch.save)))
    assert same(read_vit(folder / named).weights, expected)
    assert f"{named}: no such file; using {written} in its place" in capsys.readouterr().err
    assert same(load_model(folder / named).model.vision_tower.state_dict(), expected)
    assert same(open_encoder(folder / named).backbone.state_dict(), expected)


def test_a_checkpoint_that_does_not_exist_names_those_that_do(run, tmp_path):
    shutil.copytree(run[0] / "checkpoint-8000", run[0] / "checkpoint-500")
    for name in ("checkpoint-7000", "checkpoint-7000/pytorch_model.bin"):
        with pytest.raises(FileNotFoundError, match="holds checkpoint-500, checkpoint-8000"):
            find_weights(run[0] / name)
    with pytest.raises(FileNotFoundError, match="hf download OpenGVLab/InternVL2_5-1B --local-dir"):
        load_model(tmp_path / "InternVL2_5-1B")


def test_a_missing_name_in_folders_of_transformers(tmp_path, capsys):
    name = "pytorch_model.bin"
    assert open_encoder(write_clip(tmp_path / "clip") / name).image_size == 32
    assert load_image_text_model(str(write_llava(tmp_path / "llava") / name), device="cpu").processor
    tokenizer = make_tokenizer(TEXTS, 600)
    build_blip2(fit_config(CONFIG, tokenizer)).save_pretrained(tmp_path / "blip2")
    tokenizer.save_pretrained(tmp_path / "blip2")
    assert read_blip2(str(tmp_path / "blip2" / name))[0].num_parameters() > 0
    assert capsys.readouterr().err.count("using model.safetensors in its place") == 3


def test_published_weights_have_no_config(tmp_path, capsys):
    """One file under InternVL's names, 1024 wide, as ViTP's authors publish theirs."""
    sizes = {"hidden_size": 1024, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 16}
    model = InternVLVisionModel(InternVLVisionConfig(**sizes, attention_bias=True, image_size=28, patch_size=14))
    model.save_pretrained(tmp_path / "hf")
    extract_vit.main([str(tmp_path / "hf"), str(tmp_path / "out" / "vit.safetensors")])
    weights = load_file(tmp_path / "out" / "vit.safetensors")
    alone = tmp_path / "ViTP_ViT_L_300M_rs.safetensors"
    save_file({f"vision_model.{name}": value for name, value in weights.items()}, alone)
    vit = read_vit(alone)
    assert vit.config.num_attention_heads == 16 and same(vit.weights, model.state_dict())
    assert vit.image_mean == [0.485, 0.456, 0.406] and "no config.json next to it; 16 heads" in capsys.readouterr().err


def test_json2jsonl_with_one_name(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(LINES))
    json2jsonl.main([str(tmp_path / "mine.json")])
    written = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["conversations"] for line in written] == [line["conversations"] for line in LINES]
    with pytest.raises(ValueError, match="mine.jsonl: is the input"):
        json2jsonl.main([str(tmp_path / "mine.jsonl")])
