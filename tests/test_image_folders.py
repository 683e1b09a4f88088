"""Listing images: links, loops, names of any bytes, folders that cannot be read."""

import os
from pathlib import Path

import pytest

from common.images.folders import list_images


def test_list_images_is_sorted_and_skips_hidden(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt", "deep/c.webp", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == [
        "a.JPG",
        "b.png",
        "deep/c.webp",
    ]
    with pytest.raises(FileNotFoundError, match="no image below it"):
        list_images(tmp_path / "empty")


def test_links_are_followed_and_what_cannot_be_read_is_named(tmp_path):
    good, data = tmp_path / "elsewhere" / "good.png", tmp_path / "data"
    for path in (good, data / "a.png", data / "b\x1b[31m\n.png"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (data / "linked").symlink_to(good.parent)
    (good.parent / "back").symlink_to(data)  # a loop
    (data / "itself.png").symlink_to("itself.png")
    (data / "gone.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(data / "pipe.png")
    (data / os.fsdecode(b"caf\xe9.png")).touch()
    skipped = {}
    names = [path.relative_to(data).as_posix() for path in list_images(data, skipped)]
    assert names == ["a.png", "b\x1b[31m\n.png", "linked/good.png"]
    reasons = {name.removeprefix(f"{data}/"): reason for name, reason in skipped.items()}
    assert {name: reason.split()[-1] for name, reason in reasons.items()} == {
        "itself.png": "exist",
        "gone.png": "exist",
        "pipe.png": "file",
        "caf\\udce9.png": "it",
    }


def test_links_to_links_do_not_multiply_without_end(tmp_path):
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        for name in "ab":
            (tmp_path / str(number) / name).symlink_to(tmp_path / str(number + 1))
    (tmp_path / "20").mkdir()
    (tmp_path / "20" / "a.png").touch()
    skipped = {}
    assert 1 <= len(list_images(tmp_path, skipped)) < 200 and "more than 8 ways" in str(skipped)


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    for name in ("closed/a.png", "open/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    listing = os.scandir

    def scandir(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    skipped = {}
    assert list_images(tmp_path, skipped) == [tmp_path / "open" / "b.png"]
    assert skipped == {str(tmp_path / "closed"): "cannot be listed (Permission denied)"}
