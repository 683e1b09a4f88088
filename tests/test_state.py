"""Resume states: damage is detected and named, and the previous state takes the place of a damaged one."""

import json
import os
import shutil
from pathlib import Path

import pytest

from common.training.resume_state import (
    atomic_save,
    ensure_valid_state,
    find_damage,
    latest_valid_checkpoint,
    promote_state,
    write_checksums,
)

DAMAGE = {
    "one bit": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
}


def write_state(folder: Path, step: int) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps({"step": step}))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "inner" / "optimizer.bin").write_bytes(b"moments" * 100)
    write_checksums(folder)
    return folder


def save(last: Path, step: int) -> None:
    promote_state(write_state(last.with_name("last.partial"), step), last)


def step_of(folder: Path) -> int:
    return json.loads((folder / "progress.json").read_text())["step"]


@pytest.mark.parametrize("name", ["progress.json", "model.safetensors", "inner/optimizer.bin"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_the_state_before_is_taken(tmp_path, name, damage, capsys):
    last = tmp_path / "last"
    save(last, 1)
    save(last, 2)
    ensure_valid_state(last)
    assert step_of(last) == 2 and capsys.readouterr().err == ""
    DAMAGE[damage](last / name)
    wrong = find_damage(last)
    assert name.split("/")[-1] in wrong
    ensure_valid_state(last)
    assert step_of(last) == 1 and find_damage(last) == ""
    shown = capsys.readouterr().err
    assert f"{last}: {wrong}; kept as {last}.broken" in shown and (tmp_path / "last.broken").is_dir()
    save(last, 2)
    assert step_of(last) == 2 and step_of(tmp_path / "last.older") == 1


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_whole_state_before_it_says_so(tmp_path, damage):
    last = tmp_path / "last"
    with pytest.raises(FileNotFoundError, match="no state to resume from"):
        ensure_valid_state(last)
    save(last, 1)
    DAMAGE[damage](last / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is .*no valid state before it"):
        ensure_valid_state(last)
    save(last, 2)  # the broken one is now the one before
    DAMAGE[damage](last / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is .*no valid state before it"):
        ensure_valid_state(last)


def test_a_kill_between_the_renames_leaves_the_one_before(tmp_path):
    last = tmp_path / "last"
    save(last, 1)
    last.rename(tmp_path / "last.older")
    ensure_valid_state(last)
    assert step_of(last) == 1


@pytest.mark.parametrize("moment", ["the older one is deleted", "both are moved"])
def test_a_kill_while_states_change_places_and_then_damage(tmp_path, moment):
    last = tmp_path / "last"
    save(last, 1)
    write_state(tmp_path / "last.partial", 2)
    if moment == "both are moved":
        last.rename(tmp_path / "last.older")
        DAMAGE["one bit"](tmp_path / "last.older" / "model.safetensors")
    else:
        DAMAGE["one bit"](last / "model.safetensors")
    ensure_valid_state(last)
    assert step_of(last) == 2 and find_damage(last) == ""


def test_a_state_that_is_half_written_is_never_taken(tmp_path):
    last = tmp_path / "last"
    save(last, 1)
    (write_state(tmp_path / "last.partial", 2) / "checksums.json").unlink()
    DAMAGE["one bit"](last / "model.safetensors")
    with pytest.raises(ValueError, match="no valid state before it"):
        ensure_valid_state(last)


def test_damaged_and_missing_checksums(tmp_path):
    last = write_state(tmp_path / "last", 1)
    for content in (b"\xff\x00", b"[1]", b"{", b'{"progress.json": 3}', b'{"../../etc/passwd": "0"}'):
        (last / "checksums.json").write_bytes(content)
        assert find_damage(last)
    (last / "checksums.json").unlink()
    assert find_damage(last) == "checksums.json is missing"


@pytest.mark.parametrize("target", ["/dev/zero", ""])
def test_what_is_no_file_is_not_waited_for(tmp_path, target):
    (tmp_path / "model").write_text("weights")
    write_checksums(tmp_path)
    (tmp_path / "model").unlink()
    (tmp_path / "model").symlink_to(target) if target else os.mkfifo(tmp_path / "model")
    assert find_damage(tmp_path) == "model is not a file"


def test_the_newest_whole_checkpoint_is_taken_and_broken_ones_are_named(tmp_path, capsys):
    for number in (2, 9, 10):
        shutil.copytree(write_state(tmp_path / "made", number), tmp_path / f"checkpoint-{number}")
        shutil.rmtree(tmp_path / "made")
    (tmp_path / "checkpoint-best").mkdir()
    assert latest_valid_checkpoint(tmp_path / "gone") is None
    assert latest_valid_checkpoint(tmp_path) == tmp_path / "checkpoint-10" and capsys.readouterr().err == ""
    DAMAGE["one bit"](tmp_path / "checkpoint-10" / "model.safetensors")
    DAMAGE["truncated"](tmp_path / "checkpoint-9" / "model.safetensors")
    assert latest_valid_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:] for line in shown] == [
        [str(tmp_path / f"checkpoint-{number}"), "model.safetensors is not as it was written"] for number in (10, 9)
    ]
    DAMAGE["deleted"](tmp_path / "checkpoint-2" / "model.safetensors")
    assert latest_valid_checkpoint(tmp_path) is None


def test_a_reader_that_is_killed_during_a_save_is_not_called_a_full_disk(tmp_path):
    """torch raises it wherever the main process is."""
    killed = "DataLoader worker (pid 7) is killed by signal: Killed."
    for words, expected in ((killed, RuntimeError), ("unexpected pos 64 vs 0", OSError)):
        with pytest.raises(expected, match=words.split()[0]), atomic_save(tmp_path / "partial", "as before"):
            (tmp_path / "partial").mkdir()
            raise RuntimeError(words)
        assert not (tmp_path / "partial").exists()


def test_a_checkpoint_that_broke_off_before_its_checksums_is_left_out(tmp_path, capsys):
    """Another process's random state, or what a power cut took, may be missing."""
    for number in (1, 2, 3):
        folder = write_state(tmp_path / f"checkpoint-{number}", number)
        (folder / "trainer_state.json").write_text('{"global_step": 1}')
        write_checksums(folder)
    (tmp_path / "checkpoint-3" / "checksums.json").unlink()
    assert latest_valid_checkpoint(tmp_path).name == "checkpoint-2"
    assert "checkpoint-3: checksums.json is missing" in capsys.readouterr().err
