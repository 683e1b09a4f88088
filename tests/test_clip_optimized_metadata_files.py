"""clip/optimized_metadata.py as it is typed: files in, files out, broken lines, limits."""

import json
import os
import tracemalloc

import pytest
from tiny.persona import RECORD, slow_count

from clip import optimized_metadata
from clip.optimized_metadata import main, optimise_record


def write_jsonl(path, lines, start=b"", end=b"\n"):
    raw = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines]
    path.write_bytes(start + b"".join(line + end for line in raw))
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def record(name, **fields):
    return {"file_name": name, "character": "Rua", "appearance": "Red hair.", **fields}


def test_without_flags_in_the_folder_of_the_metadata(tmp_path, monkeypatch, capsys):
    write_jsonl(tmp_path / "metadata.jsonl", [RECORD, {"file_name": "b.png"}])
    monkeypatch.chdir(tmp_path)
    report = main([])
    lines = read_lines(tmp_path / "optimized_metadata.jsonl")
    assert lines == [optimise_record(row)[0] for row in (RECORD, {"file_name": "b.png"})]
    assert lines[1]["hair"] == {"colour": [], "length": [], "style": []} and lines[1]["personality"] == []
    assert report["written"] == 2 and report["share"]["with hair"] == 0.5 and report["share"]["sentence cut"] == 0
    assert report["mean_tokens"] == (slow_count(lines[0]["text"]) + 2) / 2
    printed = capsys.readouterr()
    assert "2 lines, 0 skipped" in printed.out and "with eyes" in printed.out and printed.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metadata.jsonl", "optimized_metadata.jsonl"]


def test_json_is_all_that_json_prints(tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", [RECORD] * 3)
    report = main(["--metadata", str(source), "--output", str(tmp_path / "out.jsonl"), "--json", "--max_tokens", "20"])
    assert json.loads(capsys.readouterr().out) == report
    assert report["share"]["sentence cut"] == 1 and report["max_tokens"] == 20
    assert all(slow_count(line["text"]) <= 20 for line in read_lines(tmp_path / "out.jsonl"))


def test_windows_files_and_chinese_names(tmp_path):
    rows = [record("images\\米拉.png", character="米拉", title="纸港"), record("images/b.png")]
    plain = write_jsonl(tmp_path / "plain.jsonl", rows)
    windows = write_jsonl(
        tmp_path / "windows.jsonl", [rows[0], b"", b"  ", rows[1]], start=b"\xef\xbb\xbf", end=b"\r\n"
    )
    reports = [main(["--metadata", str(path), "--output", f"{path}.out"]) for path in (plain, windows)]
    assert (tmp_path / "plain.jsonl.out").read_bytes() == (tmp_path / "windows.jsonl.out").read_bytes()
    assert reports[0]["lines"] == reports[1]["lines"] == 2
    first = read_lines(tmp_path / "plain.jsonl.out")[0]
    assert (
        first["id"] == "米拉"
        and first["file_name"] == "images\\米拉.png"
        and first["text"].startswith("米拉 from 纸港, with")
    )
    assert "米拉".encode() in (tmp_path / "plain.jsonl.out").read_bytes()


def test_ids_are_distinct_and_do_not_depend_on_the_order(tmp_path):
    names = ["a/x.png", "b/x.png", "a/y.png", "a/y.jpg", "z.png", "z.png.jpg", "q.png", "q.png"]
    write_jsonl(tmp_path / "one.jsonl", [record(name) for name in names])
    write_jsonl(tmp_path / "two.jsonl", [record(name) for name in reversed(names)])
    ids = {}
    for name in ("one", "two"):
        main(["--metadata", str(tmp_path / f"{name}.jsonl"), "--output", str(tmp_path / f"{name}.out")])
        ids[name] = [line["id"] for line in read_lines(tmp_path / f"{name}.out")]
    assert ids["one"] == ["a/x.png", "b/x.png", "a/y.png", "a/y.jpg", "z", "z.png.jpg", "q.png#7", "q.png#8"]
    assert set(ids["two"][2:]) == set(ids["one"][:6])


def test_broken_lines_are_skipped_counted_and_named(tmp_path, capsys):
    bad = [
        b"{not json",
        b"[1, 2]",
        b'{"character": "A"}',
        b'{"file_name": ""}',
        b'{"file_name": "\xff.png"}',
        b'{"file_name": "\\ud83d.png"}',
        b"[" * 100_000,
        b'{"file_name": 7}',
    ]
    source = write_jsonl(tmp_path / "in.jsonl", [*bad, *(record(f"{i}.png") for i in range(8))])
    output = tmp_path / "out.jsonl"
    with pytest.raises(
        ValueError, match=r"in\.jsonl: 8 of 16 lines are broken, the first is line 1: not JSON.*--max_broken"
    ):
        main(["--metadata", str(source), "--output", str(output)])
    assert not output.exists()
    report = main(["--metadata", str(source), "--output", str(output), "--max_broken", "0.5"])
    assert report["skipped"] == 8 and report["written"] == 8 and len(read_lines(output)) == 8
    assert [one["line"] for one in report["broken"]] == list(range(1, 9))
    reasons = [one["reason"] for one in report["broken"]]
    for reason, part in zip(
        reasons, ["not JSON", "list", "file_name", "file_name", "UTF-8", "surrogate", "not JSON", "file_name"]
    ):
        assert part in reason
    assert "line 5: not UTF-8" in capsys.readouterr().out


def test_five_percent_is_the_limit(tmp_path):
    rows = [b"x", *(record(f"{i}.png") for i in range(19))]
    assert (
        main(["--metadata", str(write_jsonl(tmp_path / "a", rows)), "--output", str(tmp_path / "out")])["skipped"] == 1
    )
    with pytest.raises(ValueError, match="1 of 19"):
        main(["--metadata", str(write_jsonl(tmp_path / "b", rows[:-1])), "--output", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="1 of 1"):
        main(
            [
                "--metadata",
                str(write_jsonl(tmp_path / "c", [b"x"])),
                "--output",
                str(tmp_path / "o"),
                "--max_broken",
                "1",
            ]
        )


def test_many_broken_lines_do_not_fill_the_report(tmp_path):
    source = write_jsonl(tmp_path / "in", [record("a.png"), *[b"x"] * 300])
    report = main(["--metadata", str(source), "--output", str(tmp_path / "out"), "--max_broken", "1"])
    assert report["skipped"] == 300 and len(report["broken"]) == 100


def test_a_failure_leaves_the_old_output(tmp_path, monkeypatch):
    source, output = write_jsonl(tmp_path / "in", [record("a.png"), record("b.png")]), tmp_path / "out"
    output.write_text("old")
    real, seen = optimized_metadata.count_tokens, []

    def fail(text):
        seen.append(text)
        return real(text) if len(seen) < 2 else 1 / 0

    monkeypatch.setattr(optimized_metadata, "count_tokens", fail)
    with pytest.raises(ZeroDivisionError):
        main(["--metadata", str(source), "--output", str(output)])
    assert output.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"", "holds no line"),
        (b"\n\r\n", "holds no line"),
        ('{"file_name": "a"}'.encode("utf-16-le"), "UTF-16 without a byte order mark"),
    ],
)
def test_files_that_are_no_metadata(tmp_path, content, message):
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        main(["--metadata", str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_paths_that_cannot_be(tmp_path):
    source = write_jsonl(tmp_path / "in", [record("a.png")])
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "hard")
    for same in ("in", "link", "hard"):
        with pytest.raises(ValueError, match="--output .* is the input that metadata names"):
            main(["--metadata", str(source), "--output", str(tmp_path / same)])
    for missing, message in (("no", "no such file.*--metadata"), ("", "is a folder.*--metadata")):
        with pytest.raises(FileNotFoundError, match=message):
            main(["--metadata", str(tmp_path / missing), "--output", str(tmp_path / "out")])
    for output, message in (("", "is a folder"), ("no/out", "--output")):
        with pytest.raises(ValueError, match=message):
            main(["--metadata", str(source), "--output", str(tmp_path / output)])
    for flags, message in ((["--max_tokens", "3"], "--max_tokens"), (["--max_broken", "7"], "--max_broken")):
        with pytest.raises(ValueError, match=message):
            main(["--metadata", str(source), "--output", str(tmp_path / "out"), *flags])
    assert read_lines(source) == [record("a.png")]


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Ten times the lines, of 4 kB each: the same peak but for some bytes a line."""

    def peak(lines, prefix=""):
        source = write_jsonl(tmp_path / "in", [record(f"{prefix}{i}.png", url="x" * 4000) for i in range(lines)])
        tracemalloc.start()
        main(["--metadata", str(source), "--output", str(tmp_path / "out")])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(600, "other")  # tables that are made once
    assert min(peak(600), peak(600)) - peak(60) < 540 * 200  # a thread of another test may allocate, once
