"""Every format that pairs come in, and what is refused and named."""

import json

import pytest
from PIL import Image
from tiny.clip import PERSONA

from clip.dataset import find_pairs
from clip.pair_files import Columns
from clip.pairs import texts_of


def picture(path, colour="red", size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write_jsonl(path, entries):
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in entries), encoding="utf-8")


def test_json_index(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    entries = [
        {"image_path": "images/a.png", "caption": "one  thing"},
        {"image_path": "images/b.png", "captions": ["first", "second", "first"], "label": "toys"},
        {"image_path": "images/a.png", "caption": "another"},
        {"image_path": "images/missing.png", "caption": "x"},
        {"image_path": "../../etc/passwd", "caption": "x"},
        {"image_path": "/etc/passwd", "caption": "x"},
        {"image_path": "images/b.png"},
        "text",
    ]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    for where in (tmp_path, tmp_path / "data.json"):
        pairs, skipped = find_pairs(where)
        assert [pair.texts for pair in pairs] == [("one thing", "another"), ("first", "second")]
        assert pairs[1].label == "toys" and pairs[1].image.is_file()
    reasons = list(skipped.values())
    assert "no such image" in reasons[0] and "leaves the data folder" in reasons[1]
    assert "leaves the data folder" in reasons[2] and "no text" in reasons[3] and "not a JSON object" in reasons[4]
    assert list(skipped)[0].endswith("data.json entry 3")


def test_absolute_paths_into_a_relative_folder_and_names_that_are_no_text(tmp_path, monkeypatch):
    picture(tmp_path / "data" / "a.png")
    paths = [str(tmp_path / "data" / "a.png"), "C:\\me\\a.png", 5, {"path": "a.png"}]
    (tmp_path / "data" / "data.json").write_text(json.dumps([{"image": one, "caption": "x"} for one in paths]))
    monkeypatch.chdir(tmp_path)
    pairs, skipped = find_pairs("data")
    assert [pair.key for pair in pairs] == ["a.png"]
    windows, number, record = skipped.values()
    assert "leaves the data folder" in windows and "image: expected text, got a number" in number
    assert "image: expected text, got an object" in record


def test_a_link_inside_the_folder_may_lead_elsewhere(tmp_path):
    picture(tmp_path / "disk" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "data.json").write_text(json.dumps([{"image_path": "images/a.png", "caption": "x"}]))
    assert len(find_pairs(tmp_path / "data")[0]) == 1


def test_two_folders(tmp_path):
    for name in ("a.png", "b.JPG", "c.png"):
        picture(tmp_path / "images" / name)
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "a.txt").write_text("\ufeffa red square\n\nseen from above\n", encoding="utf-8")
    (tmp_path / "captions" / "b.txt").write_bytes("schön".encode("cp1252"))
    pairs, skipped = find_pairs(tmp_path)
    assert [pair.texts for pair in pairs] == [("a red square", "seen from above")]
    no_text, no_file = skipped.values()
    assert "b.txt: not UTF-8 text in line 1" in no_text and no_file == "no captions/c.txt for it"


@pytest.mark.parametrize(
    "value",
    [5, 0, 2.5, float("nan"), True, False, {"en": "a"}, {}, ["a", None], ["a", 5], [["a"]], "a \ud83d", "a\0"],
    ids=ascii,
)
def test_what_is_no_text_never_becomes_one(tmp_path, value):
    picture(tmp_path / "a.png")
    fields = {"character": "Mira", "appearance": "Red hair."}
    entries = [
        {"file_name": "a.png", "caption": "one"},
        {"file_name": "a.png", "caption": value, **fields},
        {"file_name": "a.png", "appearance": value},
        {"file_name": "a.png", "caption": "two"},
    ]
    write_jsonl(tmp_path / "metadata.jsonl", entries)
    pairs, skipped = find_pairs(tmp_path)
    assert [pair.texts for pair in pairs] == [("one", "two")]
    assert [source.split()[-1] for source in skipped] == ["2", "3"]
    assert skipped[f"{tmp_path}/metadata.jsonl line 2"].startswith("caption: ")


def test_lines_of_text_and_paths_of_other_systems(tmp_path):
    for name in ("a.png", "images/b.png", "odd\\c.png"):
        picture(tmp_path / name)
    names = ("./a.png", "images\\b.png", "odd\\c.png", "..\\..\\a.png", "C:\\images\\b.png", "x" * 300)
    records = [{"image": name, "text": f"next\x85line\u2028{number}"} for number, name in enumerate(names)]
    text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "metadata.jsonl").write_bytes(text.encode(encoding))
        pairs, skipped = find_pairs(tmp_path)
        assert [pair.key for pair in pairs] == ["a.png", "images/b.png", "odd\\c.png"]
        assert [pair.texts for pair in pairs] == [(f"next line {number}",) for number in range(3)]
        assert "leaves" in list(skipped.values())[0] and len(skipped) == 3


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("train.tsv", "filepath\ttitle\na.png\ta red, round card\nb.png\tb\n", Columns()),
        ("train.csv", 'filepath,title\na.png,"a red, round card"\nb.png,b\n', Columns()),
        ("metadata.csv", "file_name;text;title\r\na.png;a red, round card;Story\r\nb.png;b;\r\n", Columns()),
        ("x.csv", "n|src|alt|text\n1|a.png|a red, round card|z\n2|b.png|b|z\n", Columns("src", "alt", "|")),
        ("r.token", "a.png#0\ta red, round card\nb.png#1\tb\n", Columns()),
    ],
)
def test_tables_of_pairs(tmp_path, name, text, columns):
    for image in ("a.png", "b.png"):
        picture(tmp_path / "images" / image if name == "r.token" else tmp_path / image)
    (tmp_path / name).write_text(text)
    pairs, skipped = find_pairs(tmp_path / name, columns=columns)
    assert [pair.texts for pair in pairs] == [("a red, round card",), ("b",)] and not skipped
    assert pairs[0].title == ("Story" if name == "metadata.csv" else "")


def test_a_column_that_is_not_there_and_ragged_rows(tmp_path):
    picture(tmp_path / "a.png")
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,text\na.png,one\na.png,red, small\na.png\na.png,two\n")
    pairs, skipped = find_pairs(tmp_path)
    assert pairs[0].texts == ("one", "two") and list(skipped) == [f"{table} line {number}" for number in (3, 4)]
    with pytest.raises(ValueError, match=r"unknown column 'nothing'.*--csv_caption_key"):
        find_pairs(table, columns=Columns(csv_caption_key="nothing"))


def test_captions_of_coco_and_a_file_of_splits(tmp_path):
    picture(tmp_path / "val2017" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}, 5],
        "annotations": [
            {"image_id": 1, "caption": "one"},
            {"image_id": 1, "caption": "two"},
            *({"image_id": 2, "caption": "x"}, {"image_id": 3, "caption": "x"}, {"image_id": [1]}, 5),
        ],
    }
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    pairs, skipped = find_pairs(path)
    assert [(pair.key, pair.texts) for pair in pairs] == [("val2017/1.png", ("one", "two"))]
    assert [source.removeprefix(f"{path} annotation ") for source in skipped] == ["3", "4", "5", "6"]
    path.write_text(json.dumps({"images": [{"filename": "1.png", "sentences": [{"raw": "x"}]}], "dataset": "coco"}))
    with pytest.raises(ValueError, match=r"captions_val2017.json: .*Karpathy"):
        find_pairs(path)


def test_metadata_lines(tmp_path):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    second = {**PERSONA, "file_name": "images/b.png", "personality": "Kind."}
    write_jsonl(tmp_path / "metadata.jsonl", [PERSONA, "", "{broken", second, '["list"]'])
    pairs, skipped = find_pairs(tmp_path)
    assert [pair.texts for pair in pairs] == [("Mira. Red hair", "Mira"), ("Mira. Red hair", "Mira. Kind")]
    assert {pair.character for pair in pairs} == {"Mira"} and pairs[0].title == "Story"
    assert [where.split()[-1] for where in skipped] == ["3", "5"]
    assert find_pairs(tmp_path, ["title+character", "appearance"])[0][0].texts == ("Story. Mira", "Red hair")
    write_jsonl(tmp_path / "optimized_metadata.jsonl", [{**PERSONA, "text": "a girl with red hair"}])
    assert find_pairs(tmp_path)[0][0].texts == ("a girl with red hair",)  # the cleaned file comes first
    with pytest.raises(ValueError, match="not one usable pair.*no text"):
        find_pairs(tmp_path / "metadata.jsonl", ["nothing"])


def test_pointers_are_called_pointers(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("metadata.jsonl", "data.json"):
        (tmp_path / name).write_text(pointer)
        with pytest.raises(ValueError, match=f"{name}.*git lfs pull"):
            find_pairs(tmp_path / name)


def test_errors_say_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="data.json, optimized_metadata.jsonl, metadata.jsonl.*images/.*tar"):
        find_pairs(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_pairs(tmp_path / "none")
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(ValueError, match="data.json"):
        find_pairs(tmp_path)


def test_built_texts():
    assert texts_of({"caption": [" a  b ", ""]}) == ["a b"]
    assert texts_of({**PERSONA, "appearance": None}) == ["Mira"]
    assert texts_of({}) == []
