"""Checkpoint files: written atomically, and safe to open."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from common.models.checkpoint_file import read_tensors, save_model, weights_digest
from common.models.model_folder import load_model
from common.text.files import write_atomically


def test_round_trip_is_exact(tmp_path):
    model = torch.nn.Linear(3, 2)
    save_model(tmp_path / "a.pth", model, "linear", {"in_features": 3}, settings={"seed": 1}, step=4)
    content = load_model(tmp_path / "a.pth", "linear")
    assert content["build"] == {"in_features": 3} and content["settings"] == {"seed": 1} and content["step"] == 4
    for name, tensor in model.state_dict().items():
        assert torch.equal(content["model_state_dict"][name], tensor)
    assert os.listdir(tmp_path) == ["a.pth"]  # nothing half-written is left


def test_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("n" * 255, "夢" * 85):
        with write_atomically(tmp_path / name) as file:
            file.write(b"new")
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")
    model = torch.nn.Linear(300, 300)
    opened = Path.open

    def open_full(file, mode):  # every write to it says 'no space left on device'
        return opened(Path("/dev/full"), "wb") if file.suffix == ".partial" else opened(file, mode)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match=r"could not be written") as error:
        save_model(path, model, "linear", {})
    assert error.value.filename == str(path) and os.listdir(tmp_path) == ["a.pth"]
    monkeypatch.undo()
    assert path.read_bytes() == b"old"


def test_a_reader_that_is_killed_during_a_save_is_not_called_a_full_disk(tmp_path, monkeypatch):
    def killed(content, file):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        save_model(tmp_path / "a.pth", torch.nn.Linear(3, 2), "linear", {})
    assert os.listdir(tmp_path) == []


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/evil-was-here",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(ValueError, match=f"{name}: refused|{name}: cannot be read"):
            read_tensors(tmp_path / name)
    assert not os.path.exists("/tmp/evil-was-here")


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    torch.save([1], tmp_path / "list.pth")
    save_model(tmp_path / "other.pth", torch.nn.Linear(1, 1), "another kind", {})
    whole = (tmp_path / "other.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name, words in {
        "junk.pth": "cannot be read",
        "cut.pth": "cannot be read",
        "none.pth": "no such file",
        "list.pth": "no checkpoint of this project",
        "other.pth": "is a 'another kind' checkpoint",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=f"{name}: .*{words}"):
            load_model(tmp_path / name, "style encoder")


def test_a_pointer_in_place_of_weights_is_called_one(tmp_path):
    (tmp_path / "w.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="w.pth: a Git LFS pointer.*git lfs pull"):
        read_tensors(tmp_path / "w.pth")


def test_a_digest_of_weights():
    weights = {"scale": torch.randn(3000), "steps": torch.tensor(7), "empty": torch.zeros(0, 4)}
    digests = {sampled: weights_digest(weights, sampled) for sampled in (False, True)}
    assert all(len(digest) == 24 for digest in digests.values())
    assert weights_digest(dict(reversed(weights.items()))) == digests[False]
    half = {**weights, "scale": weights["scale"].bfloat16()}
    assert weights_digest(half, sampled=True) == digests[True] and weights_digest(half) != digests[False]
    changed = {**weights, "scale": weights["scale"].clone()}
    changed["scale"][1] += 1  # not among the sampled values
    assert weights_digest(changed, sampled=True) == digests[True] and weights_digest(changed) != digests[False]
    changed["scale"][0] += 1
    assert weights_digest(changed, sampled=True) != digests[True]
    assert weights_digest({**weights, "scale": weights["scale"].view(30, 100)}) != digests[False]
