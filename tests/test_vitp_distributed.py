"""The shipped configurations, and sharding by the engines that a CPU has."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_vitp_model import tiny_batch, tiny_model
from test_vitp_train import flags, parts, torchrun, weights  # noqa: F401  parts is a fixture

from vitp.config import SHIPPED, Parser, RunArguments
from vitp.train import main

SHARDED = """
import torch, torch.distributed as dist, sys
from torch.distributed.fsdp import fully_shard
sys.path.insert(0, "{tests}")
from test_vitp_model import tiny_batch, tiny_model
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


def test_fully_sharded_equals_whole(tmp_path):
    """FSDP2 over two gloo processes, where one has images and the other none, against the mean of both in one."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED.format(tests=ROOT / "tests", output=tmp_path / "state.pt"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
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
def test_zero(parts, tmp_path, stage, monkeypatch):  # noqa: F811
    """With DeepSpeed on two processes: the weights of one process without, also after going on from the middle."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    pytest.importorskip("deepspeed")
    common = {"TMAug_prob": 0, "drop_path_rate": 0, "learning_rate": 1e-3}
    main(flags(parts, tmp_path / "one", **common))
    two = flags(
        parts,
        tmp_path / "two",
        **common,
        per_device_train_batch_size=2,
        save_steps=2,
        deepspeed=f"zero_stage{stage}.json",
        ddp_backend="gloo",
    )
    for more in ([], ["--resume_from_checkpoint", str(tmp_path / "two" / "checkpoint-2")]):
        done = torchrun(2, [*two, *more])
        assert done.returncode == 0, done.stderr[-3000:]
        expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
        assert all(torch.allclose(expected[name], found[name], atol=1e-5) for name in expected), more
        (tmp_path / "two" / "model.safetensors").unlink()


def test_shipped_configurations(tmp_path):
    for stage in (1, 2, 3):
        config = json.loads((SHIPPED / f"zero_stage{stage}.json").read_text())
        assert config["zero_optimization"]["stage"] == stage
        assert config["bf16"]["enabled"] == config["train_micro_batch_size_per_gpu"] == "auto"  # the flags' own values
    (run,) = Parser((RunArguments,)).parse(["--fsdp", "--fsdp_config", "fsdp.json", "--output_dir", str(tmp_path)])
    assert run.fsdp_plugin_args["fsdp_version"] == 2 and run.fsdp_plugin_args["state_dict_type"] == "FULL_STATE_DICT"
    # Both towers' layers are units; nothing has to be named for one language model or another.
    assert {"InternVLVisionLayer", "Qwen2DecoderLayer"} <= set(tiny_model()._no_split_modules)


def test_what_an_engine_lacks_is_said(parts, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="--fsdp needs GPUs"):
        main([*flags(parts, tmp_path), "--fsdp", "--fsdp_config", "fsdp.json"])
    if "deepspeed" not in sys.modules:
        try:
            import deepspeed  # noqa: F401
        except ImportError:
            with pytest.raises(ValueError, match="needed for --deepspeed .*zero_stage2.json"):
                main(flags(parts, tmp_path, deepspeed="zero_stage2.json"))
