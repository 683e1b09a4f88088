"""llava/inference.py as it is typed: one image, test cases, tables in and results out."""

import json

import pytest
from tiny.llava import picture, write_pictures

from llava import config, inference


def run(llava_folders, *arguments):
    return inference.main(
        [
            "--model_id",
            str(llava_folders["llava"]),
            "--device",
            "cpu",
            "--description_tokens",
            "4",
            "--analysis_tokens",
            "4",
            *arguments,
        ]
    )


def test_one_image_and_the_test_cases(llava_folders, tmp_path, capsys, monkeypatch):
    write_pictures(tmp_path, 1)
    found = run(llava_folders, "--image", str(tmp_path / "0.png"), "--text", "a star", "--json")
    assert json.loads(capsys.readouterr().out) == found and found[0]["text"] == "a star"
    assert set(found[0]) >= {
        "description",
        "score",
        "analysis",
        "expected_score",
        "p_yes",
        "prompt",
        "tokens",
        "seconds",
    }
    monkeypatch.setattr(config, "test_cases", [(str(tmp_path / "0.png"), "one"), (str(tmp_path / "0.png"), "two")])
    assert len(run(llava_folders)) == 2 and capsys.readouterr().out.count("P(Yes)") == 2
    with pytest.raises(FileNotFoundError, match="absent.png"):
        run(llava_folders, "--image", "absent.png", "--text", "x")
    with pytest.raises(ValueError, match="--text"):
        run(llava_folders, "--image", "a.png")
    with pytest.raises(ValueError, match="did you mean en"):
        run(llava_folders, "--language", "eng")


def test_a_table_in_and_results_out_with_resume(llava_folders, tmp_path, capsys):
    write_pictures(tmp_path, 4)
    table, out = tmp_path / "pairs.csv", tmp_path / "out" / "results.jsonl"
    table.write_text("image,text\n0.png,a star\n1.png,a beach\nabsent.png,x\n2.png,\n3.png,a star\n")
    found = run(llava_folders, "--input", str(table), "--output", str(out))
    first = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found) == len(first) == 5 and sum("error" in line for line in first) == 2
    assert "absent.png" in capsys.readouterr().err
    good = [line for line in out.read_text().splitlines() if '"error"' not in line]
    out.write_text("\n".join(good[:2]) + "\n" + good[2][:30])  # as a kill leaves it
    picture(9).save(tmp_path / "absent.png")
    run(llava_folders, "--input", str(table), "--output", str(out), "--batch_size", "1")
    second = {line["key"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert sorted(second) == list("12345") and [key for key in second if "error" in second[key]] == ["4"]
    assert "are already in" in capsys.readouterr().err
    for line in first:
        again = second[line["key"]]
        for name in () if "error" in line else ("description", "response", "tokens", "attempts", "prompt"):
            assert line[name] == again[name], name
    with pytest.raises(ValueError, match="other settings"):
        run(llava_folders, "--input", str(table), "--output", str(out), "--score_temperature", "0.5")
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"image": "0.png", "text": "a star", "id": "mine"}\nnot json\n')
    assert [line["key"] for line in run(llava_folders, "--input", str(lines), "--json")] == ["mine", "2"]
