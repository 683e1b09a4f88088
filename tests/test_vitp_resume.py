"""ViTP's runs stopped, killed, damaged and resumed, and in two processes: the weights of a run left alone."""

import signal

import pytest
import torch
from conftest import flip_a_bit
from processes import start_script, torchrun, wait_until
from tiny.vitp import PROJECTOR_PREFIX, same, vitp_flags, weights

from common.training.resume_state import write_checksums
from vitp.train import main


def stop_and_go_on(vitp_parts, tmp_path, **more):
    """A run of six steps, and one resumed from the state after its third -> their weights. Half an epoch, or, by
    length, a whole one; images are augmented anew in each."""
    more = {"meta_path": vitp_parts / "data" / "augmented.json", **more}
    whole = vitp_flags(vitp_parts, tmp_path / "whole", max_steps=6, save_steps=3, drop_path_rate=0.2, **more)
    main(whole)
    straight = weights(tmp_path / "whole")
    (tmp_path / "whole" / "model.safetensors").unlink()
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    main([*whole, "--resume_from_checkpoint", str(checkpoint)])
    return straight, weights(tmp_path / "whole"), weights(checkpoint)


@pytest.mark.parametrize(
    "more",
    [
        {"TMAug_mode": "guide"},
        {"TMAug_mode": "paper", "group_by_length": True, "gradient_accumulation_steps": 2},
        {"TMAug_mode": "repo", "packing": True, "per_device_train_batch_size": 1, "dataloader_num_workers": 1},
    ],
    ids=["guide", "paper, by length", "repo, packed"],
)
def test_resumed_run_ends_with_the_same_weights(vitp_parts, tmp_path, more):
    straight, resumed, checkpoint = stop_and_go_on(vitp_parts, tmp_path, **more)
    assert same(straight, resumed) and not same(straight, checkpoint)


def test_without_the_masking_state_a_resumed_run_would_differ(vitp_parts, tmp_path, monkeypatch):
    from vitp.train import InstructionTrainer

    monkeypatch.setattr(
        InstructionTrainer, "_load_rng_state", super(InstructionTrainer, InstructionTrainer)._load_rng_state
    )
    straight, resumed, _ = stop_and_go_on(vitp_parts, tmp_path, TMAug_mode="guide")
    assert not same(straight, resumed)


@pytest.mark.slow
def test_killed_run_goes_on(vitp_parts, tmp_path):
    """SIGKILL while it trains, then the same command with --resume_from_checkpoint true."""
    command = vitp_flags(vitp_parts, tmp_path / "killed", max_steps=16, save_steps=4)
    process = start_script("vitp/train.py", command)
    state = tmp_path / "killed" / "checkpoint-4" / "checksums.json"  # written last
    wait_until(state.is_file, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").is_file()
    with pytest.raises(ValueError, match="checkpoint-[0-9]+ exists; .* --resume_from_checkpoint true"):
        main(command)
    broken = tmp_path / "killed" / "checkpoint-15"  # as a kill in the middle of writing leaves it
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_st')
    main([*command, "--resume_from_checkpoint", "true"])
    main(vitp_flags(vitp_parts, tmp_path / "straight", max_steps=16))
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "straight"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(vitp_parts, tmp_path, capsys):
    main(vitp_flags(vitp_parts, tmp_path / "straight"))
    command = vitp_flags(vitp_parts, tmp_path / "run", save_steps=1)
    main(command)
    flip_a_bit(tmp_path / "run" / "checkpoint-4" / "optimizer.pt")
    main([*command, "--resume_from_checkpoint", "true"])
    assert "checkpoint-4: optimizer.pt is not as it was written" in capsys.readouterr().err
    assert same(weights(tmp_path / "run"), weights(tmp_path / "straight"))
    flip_a_bit(tmp_path / "run" / "checkpoint-2" / "optimizer.pt")
    with pytest.raises(ValueError, match="checkpoint-2: .*, optimizer.pt is not as"):
        main([*command, "--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2")])


def test_a_checkpoint_of_another_model_is_refused(vitp_parts, tmp_path):
    main(vitp_flags(vitp_parts, tmp_path, max_steps=2, save_steps=1))
    path = tmp_path / "checkpoint-1" / "model.safetensors"
    changed = weights(path.parent)
    changed["model.extra"] = changed.pop(f"{PROJECTOR_PREFIX}linear_1.bias")
    from safetensors.torch import save_file

    save_file(changed, path, metadata={"format": "pt"})
    write_checksums(path.parent)  # else it would be refused as damaged
    with pytest.raises(ValueError, match="not of this model: 2 tensors differ"):
        main([*vitp_flags(vitp_parts, tmp_path, max_steps=2), "--resume_from_checkpoint", str(path.parent)])


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
def test_two_processes_equal_one(vitp_parts, tmp_path, packing):
    common = {"TMAug_prob": 0, "drop_path_rate": 0, "learning_rate": 0.1, "optim": "sgd", "packing": packing}
    one = vitp_flags(vitp_parts, tmp_path / "one", **common, per_device_train_batch_size=4)
    two = vitp_flags(vitp_parts, tmp_path / "two", **common, per_device_train_batch_size=2, ddp_backend="gloo")
    main(one)
    torchrun("vitp/train.py", two)
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = tmp_path / "start"
    main(vitp_flags(vitp_parts, start, **{**common, "learning_rate": 0}, max_steps=1))
    moved = sum(float((ours[name] - value).norm()) for name, value in weights(start).items())
    apart = sum(float((ours[name] - theirs[name]).norm()) for name in ours)
    assert moved > 0.1 and apart < 1e-4 * moved


@pytest.mark.slow
def test_ranks_mask_differently_and_each_saves_its_state(vitp_parts, tmp_path):
    more = {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 2, "ddp_backend": "gloo"}
    torchrun("vitp/train.py", vitp_flags(vitp_parts, tmp_path, **more, TMAug_mode="paper"))
    states = [torch.load(tmp_path / "checkpoint-2" / f"token_masking_{rank}.pt") for rank in (0, 1)]
    assert not torch.equal(*states)
