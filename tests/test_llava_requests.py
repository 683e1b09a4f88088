"""Requests from tables of any origin, and results files: nothing lost, nothing asked twice, nothing overwritten."""

import json
import os

import pytest

from llava.request_io import FIELDS, Request, Results, read_requests, unique_keys
from llava.scoring_config import ScoringConfig


def rows_of(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def add(results, requests, **result):
    for request in requests:
        results.add({"key": request.key, "image": request.image, "text": request.text, **(result or {"score": 8})})
    results.close()


def requests_of(*texts):
    return [Request(str(number), "/a.png", text) for number, text in enumerate(texts, 1)]


def test_keys_do_not_collide():
    assert unique_keys([0, "0", None, "", "a", "a", 3]) == ["0", "0 (2)", "3 (2)", "4", "a", "a (2)", "3"]
    assert len(set(unique_keys(["a"] * 999 + ["a (2)"]))) == 1000


def test_bad_records_keep_their_place_with_their_error(tmp_path):
    path = tmp_path / "in.jsonl"
    records = [
        '{"text": "x"}',
        '{"image": "a.png", "text": "\\u2028"}',
        '{"image": "a.png", "text": 5}',
        "[",
        '{"image": [1]}',
    ]
    path.write_text("\n".join(records))
    found = read_requests(path)
    assert found[1] == Request("2", str(tmp_path / "a.png"), "\u2028")
    for request, words in zip(
        [found[0], *found[2:]], ("no image", "text: expected text", "not JSON", "image: expected")
    ):
        assert words in request.error and str(path) in request.error
    path.write_text('{"picture": "a.png", "caption": "x"}')
    with pytest.raises(ValueError, match="expected columns or fields 'image' and 'text', found picture, caption"):
        read_requests(path)


def test_images_are_relative_to_the_table_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("image,text\na.png,x\n")
    monkeypatch.chdir(tmp_path)
    here = read_requests("data/in.csv")
    monkeypatch.chdir(tmp_path / "data")
    assert read_requests("in.csv") == read_requests("../data/in.csv") == here


def test_a_second_start_asks_for_what_is_missing_in_any_order(tmp_path):
    path = tmp_path / "out.jsonl"
    first = Results(path, "h", requests_of("a", "b", "c", "d"))
    add(first, first.pending[:2], score=7.5, p_yes=0.1 + 0.2, note=None, response="\u2028\x85")
    broken = path.read_bytes()
    add(Results(path, "h", requests_of("a", "b", "c", "d")), requests_of("c"), error="no such file")
    second = Results(path, "h", requests_of("d", "b", "c", "a", "a", "new"))
    second.close()
    assert [request.text for request in second.pending] == ["d", "c", "new"]
    assert [(row["key"], row["text"]) for row in rows_of(path)] == [("2", "b"), ("4", "a"), ("5", "a")]
    assert all(row["p_yes"] == 0.1 + 0.2 and row["response"] == "\u2028\x85" for row in rows_of(path))
    path.write_bytes(broken[:-20])  # by a kill
    third = Results(path, "h", requests_of("a", "b"))
    third.close()
    assert [request.text for request in third.pending] == ["b"]
    path.write_text(json.dumps({name: text for name, text in rows_of(path)[0].items() if name in FIELDS}) + "\n")
    fourth = Results(path, "h", requests_of("a"))  # a line without its result
    fourth.close()
    assert [request.text for request in fourth.pending] == ["a"]


def test_results_of_other_requests_stay(tmp_path):
    path = tmp_path / "out.jsonl"
    results = Results(path, "h", requests_of("a"))
    add(results, results.pending)
    other = Results(path, "h", requests_of("b"))
    add(other, other.pending)
    assert {(row["key"], row["text"]) for row in rows_of(path)} == {("1 (2)", "a"), ("1", "b")}


@pytest.mark.parametrize(
    "content",
    [
        "image,text\na.png,x\n",
        "my notes",
        '{"key": "1"}\n',
        '[1]\n{"key": "',
        '{"image": "a", "text": "b"}\n',
        "\0" * 9 + "x",
    ],
)
def test_what_another_program_wrote_is_not_overwritten(tmp_path, content):
    path, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    path.write_text(content)
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(ValueError, match="no result of this program"):
            Results(name, "h", requests_of("a"))
    assert path.read_text() == content
    with pytest.raises(ValueError, match="not a file"):
        Results(os.devnull, "h", requests_of("a"))


def test_a_link_is_kept_and_its_target_written(tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    results = Results(tmp_path / "link.jsonl", "h", requests_of("a"))
    add(results, results.pending)
    assert (tmp_path / "link.jsonl").is_symlink() and len(rows_of(tmp_path / "out.jsonl")) == 1


def test_two_processes_do_not_share_a_file(tmp_path):
    first = Results(tmp_path / "out.jsonl", "h", requests_of("a"))
    with pytest.raises(ValueError, match="another process"):
        Results(tmp_path / "out.jsonl", "h", requests_of("a"))
    add(first, first.pending)
    Results(tmp_path / "out.jsonl", "h", requests_of("a")).close()
    with pytest.raises(ValueError, match="other settings"):
        Results(tmp_path / "out.jsonl", "other", requests_of("a"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_p", 0), ("top_p", 1.5), ("score_temperature", -1), ("score_temperature", float("nan")), ("num_beams", 2.5),
     ("max_attempts", True), ("feed_description", "false"), ("description_tokens", 0), ("prompts", {}), ("seed", "x")],
)  # fmt: skip
def test_scoring_settings_are_checked_in_python_too(name, value):
    with pytest.raises(ValueError, match=name):
        ScoringConfig(**{name: value})
