"""The shipped configurations, and sharding by the engines that a CPU has."""

import importlib.util
import json
import sys

import pytest
import torch
from conftest import ROOT
from processes import torchrun
from tiny.vitp import tiny_batch, tiny_model, vitp_flags, weights

from vitp.arguments import read_arguments
from vitp.config import SHIPPED
from vitp.train import main

SHARDED = """
import torch, torch.distributed as dist, sys
from torch.distributed.fsdp import fully_shard
sys.path[:0] = ["{root}", "{root}/tests"]
from tiny.vitp import tiny_batch, tiny_model
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = tiny_model().train()
units = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
assert len(units) == 5
for module in [*units, model]:
    fully_shard(module)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(3):
    batch = tiny_batch((0, 0) if rank == step % 2 else (1, 2), seed=step)  # one process has text alone
    model.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()
state = {{name: value.full_tensor() for name, value in model.state_dict().items()}}
if rank == 0:
    torch.save(state, "{output}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_fully_sharded_equals_whole(tmp_path):
    """FSDP2 over two gloo processes, where one has images and the other none, against the mean of both in one."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED.format(root=ROOT, output=tmp_path / "state.pt"))
    torchrun(script, [])
    model = tiny_model().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        model.zero_grad()
        for tiles in ((0, 0), (1, 2)):
            (model(**tiny_batch(tiles, seed=step)).loss / 2).backward()
        optimizer.step()
    sharded = torch.load(tmp_path / "state.pt")
    for name, value in model.state_dict().items():
        assert torch.allclose(sharded[name], value, atol=1e-5), name


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero(vitp_parts, tmp_path, stage, monkeypatch):
    """With DeepSpeed on two processes: the weights of one process without, also after going on from the middle."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    pytest.importorskip("deepspeed")
    common = {"TMAug_prob": 0, "drop_path_rate": 0, "learning_rate": 1e-3}
    main(vitp_flags(vitp_parts, tmp_path / "one", **common))
    two = vitp_flags(
        vitp_parts,
        tmp_path / "two",
        **common,
        per_device_train_batch_size=2,
        save_steps=2,
        deepspeed=f"zero_stage{stage}.json",
        ddp_backend="gloo",
    )
    for more in ([], ["--resume_from_checkpoint", str(tmp_path / "two" / "checkpoint-2")]):
        torchrun("vitp/train.py", [*two, *more])
        expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
        assert all(torch.allclose(expected[name], found[name], atol=1e-5) for name in expected), more
        (tmp_path / "two" / "model.safetensors").unlink()


def test_shipped_configurations(tmp_path):
    for stage in (1, 2, 3):
        config = json.loads((SHIPPED / f"zero_stage{stage}.json").read_text())
        assert config["zero_optimization"]["stage"] == stage
        assert config["bf16"]["enabled"] == config["train_micro_batch_size_per_gpu"] == "auto"  # the flags' own values
    _, _, run = read_arguments(
        ["--meta_path", "x", "--fsdp", "--fsdp_config", "fsdp.json", "--output_dir", str(tmp_path)]
    )
    assert run.fsdp_plugin_args["fsdp_version"] == 2 and run.fsdp_plugin_args["state_dict_type"] == "FULL_STATE_DICT"
    # Both towers' layers are units; nothing has to be named for one language model or another.
    assert {"InternVLVisionLayer", "Qwen2DecoderLayer"} <= set(tiny_model()._no_split_modules)


def test_what_an_engine_lacks_is_said(vitp_parts, tmp_path):
    with pytest.raises(ValueError, match="--fsdp needs GPUs"):
        main([*vitp_flags(vitp_parts, tmp_path), "--fsdp", "--fsdp_config", "fsdp.json"])
    if "deepspeed" not in sys.modules and not importlib.util.find_spec("deepspeed"):
        with pytest.raises(ValueError, match="needed for --deepspeed .*zero_stage2.json"):
            main(vitp_flags(vitp_parts, tmp_path, deepspeed="zero_stage2.json"))
