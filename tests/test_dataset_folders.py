"""Folders to samples: images made for the program (<name>_img.*), ordinary image folders, and mixtures of both."""

import os
from pathlib import Path

import pytest
import torch
from conftest import TINY_RUN, draw_styles, flags, run_folders
from PIL import Image

import evaluate_style
import prepare_targets
import train
from dataset import find_samples, split_samples


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name, format="PNG")
    return folder


def found(folder):
    return [(sample.style, sample.name) for sample in find_samples(folder)]


def test_only_the_ending_img_is_taken_off(tmp_path):
    folder = tmp_path / "风格 一"
    folder.mkdir()
    for name in ("a_img_img.png", "b_embed_img.JPG", "c_img.webp", "d.png", ".e_img.png", "f_img.txt"):
        Image.new("RGB", (4, 4)).save(folder / name, format="PNG")
    torch.save(torch.zeros(2, 3), folder / "a_img_embed.pt")
    samples = find_samples(tmp_path)
    assert [(sample.style, sample.name) for sample in samples] == [
        ("风格 一", "a_img"),
        ("风格 一", "b_embed"),
        ("风格 一", "c"),
    ]
    assert list(samples[0].targets) == ["embed"] and samples[1].targets == {}


def test_an_ordinary_folder_counts_whole(tmp_path):
    """Any depth, suffix and spelling; links, but not in circles; neither hidden files nor what a Mac's archive adds."""
    touch(tmp_path / "elsewhere", "more/z.png")
    data = touch(tmp_path / "data", "风格 一/é tude.PNG", "风格 一/deep/er/a.b.JPeG", "ink/a.webp", "ink/_b.bmp")
    touch(
        data, ".git/a.png", "ink/._a.webp", "ink/.thumbs/a.png", "__MACOSX/ink/a.png", "ink/__MACOSX/a.png", "top.png"
    )
    (data / "ink" / "notes.txt").touch()
    (data / "ink" / "round").symlink_to(data)
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "linked" / "y.png").symlink_to(data / "ink" / "a.webp")
    (data / "linked" / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert found(data) == [
        ("ink", "_b"),
        ("ink", "a"),
        ("linked", "more/z"),
        ("linked", "y"),
        ("风格 一", "deep/er/a.b"),
        ("风格 一", "é tude"),
    ]
    assert list(find_samples(data).skipped) == [str(data / "linked" / "gone.png"), str(data / "top.png")]


def test_one_name_twice(tmp_path):
    """Two files of one name are one content in an ordinary folder, and a mistake where names are made for us."""
    data = touch(tmp_path / "data", *(f"ink/{name}.{kind}" for name in "abc" for kind in ("png", "jpg")), "oil/a.png")
    assert found(data)[:2] == [("ink", "a"), ("ink", "a")]
    train_samples, val_samples = split_samples(find_samples(data), 0.5)
    assert {s.name for s in train_samples}.isdisjoint(s.name for s in val_samples) and len(train_samples) >= 4
    touch(data, "ink/a_img.png", "ink/a_img.jpg")
    with pytest.raises(ValueError, match="'a' has two images, also a_img.jpg"):
        find_samples(data)


def test_where_some_names_end_in_img_the_others_are_left_out_and_said(tmp_path):
    data = touch(tmp_path / "data", "ink/a_img.png", "ink/a_small.png", "oil/b.png", "oil/deep/c_img.png")
    assert found(data) == [("ink", "a")]
    ((file, reason),) = find_samples(data).skipped.items()
    assert file == str(data / "ink" / "a_small.png") and reason.startswith("one of 3 images that are left out")
    assert find_samples(data / "oil").skipped == {
        str(data / "oil" / "b.png"): f"one of 1 images that are left out; expected {data}/oil/<style>/<name>_img.*, "
        "or no name that ends in _img"
    }


def test_a_folder_of_style_folders_is_no_style(tmp_path):
    """As sample data lies below data/, where people also put their own."""
    data = touch(tmp_path / "data", "sample_styles/flat/a_img.png", "mine/a.png")
    assert found(data) == [("mine", "a")] and len(find_samples(data).skipped) == 1


@pytest.mark.parametrize("names", [[], ["a.png"], ["deep/er/a_img.png"], ["ink/.a.png"], ["ink/a.tif"]])
def test_empty_folders_say_what_was_looked_for(tmp_path, names):
    data = touch(tmp_path / "data", "ink/notes.txt", *names)
    with pytest.raises(FileNotFoundError) as error:
        find_samples(data)
    words = str(error.value)
    assert "<name>_img.*" in words and ".webp" in words and f"in {data}/<style>/" in words
    assert str(data / names[0]) in words if names and names[0].startswith(("a", "deep")) else "there is none" in words
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        find_samples(tmp_path / "none")


def test_targets_and_texts_of_an_ordinary_folder(tmp_path):
    data = touch(tmp_path / "data", "ink/a.png", "ink/a.jpg", "ink/deep/er/b.png", "oil paint/c.png")
    for name, text in (("ink/style.txt", "black ink"), ("ink/deep/er/b.txt", "thin ink")):
        (data / name).write_text(text, encoding="utf-8")
    texts = {prepare_targets.text_of(sample, "{style} style") for sample in find_samples(data)}
    assert texts == {"black ink", "thin ink", "oil paint style"}
    assert prepare_targets.main(flags(data_dir=data)) == 4
    assert all(set(sample.targets) == {"embed", "pooled", "mask"} for sample in find_samples(data))
    assert (data / "ink" / "deep" / "er" / "b_embed.pt").is_file()
    (data / "ink" / "deep" / "er" / "b.txt").unlink()
    assert prepare_targets.text_of(find_samples(data)[2], "") == "black ink"
    assert prepare_targets.main(flags(data_dir=data)) == 0


def test_an_image_whose_text_cannot_be_read_is_skipped_and_named(tmp_path, capsys):
    data = touch(tmp_path / "data", "ink/a.png", "ink/b.png", "ink/c.png")
    (data / "ink" / "a.txt").write_bytes("schön\n".encode("cp1252"))
    (data / "ink" / "b.txt").write_bytes("schön".encode("utf-16"))
    (data / "ink" / "c.txt").write_bytes(b"abc\0")
    assert prepare_targets.main(flags(data_dir=data)) == 1
    shown = capsys.readouterr()
    assert "a.txt: not UTF-8 text in line 1" in shown.err and "c.txt: no text" in shown.err
    assert "1 images got targets, 0 already had them" in shown.out
    with pytest.raises(ValueError, match="no image with a text; .*iconv -f"):
        prepare_targets.main(flags(data_dir=data))


def test_an_ordinary_folder_is_trained_and_evaluated(tmp_path, capsys):
    data = draw_styles(tmp_path / "data", targets=False)
    for path in data.glob("*/*_img.png"):
        (path.parent / "more").mkdir(exist_ok=True)
        path.rename(path.parent / "more" / path.name.replace("_img", ""))
    touch(data, "beside.png")
    train.main(TINY_RUN + run_folders(data, tmp_path) + flags(epochs=1))
    shown = capsys.readouterr()
    assert "3 styles to train on (style_0, style_1, style_2)" in shown.out
    assert f"skipped: {data}/beside.png: one of 1 images that are left out" in shown.err
    names = [f"more/item{number}" for number in range(4)]
    report = evaluate_style.main(flags(weights=tmp_path / "checkpoints" / "best.pth", data_dir=data, names=names))
    assert report["images"] == 12 and report["colour"]["style encoder"]["content"]  # names are contents here too


def test_what_is_no_file_is_left_out_and_named(tmp_path):
    data = touch(tmp_path / "data", "ink/a.png")
    (data / "ink" / "gone.png").symlink_to(tmp_path / "gone")
    (data / "ink" / "zero.png").symlink_to("/dev/zero")
    assert found(data) == [("ink", "a")]
    assert {Path(name).name: reason for name, reason in find_samples(data).skipped.items()} == {
        "gone.png": "a link to a file that does not exist",
        "zero.png": "not a regular file",
    }


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    data = touch(tmp_path / "data", "ink/a.png", "oil/b.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "oil":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(data) == [("ink", "a")]
    assert find_samples(data).skipped == {str(data / "oil"): "cannot be listed (Permission denied)"}
