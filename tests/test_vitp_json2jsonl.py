"""Conversion: what goes in comes out, in the form that training reads, and the rest is named."""

import json

import pytest
from PIL import Image

from common.text.conversations import parse_conversation
from vitp.json2jsonl import GRID_QUESTIONS, PROMPTS, PROMPTS_ZH, main, read_annotations
from vitp.meta_file import read_meta

LLAVA = [
    {
        "id": "a",
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "x"}],
    },
    {"id": "b", "conversations": [{"from": "human", "value": "Text?"}, {"from": "gpt", "value": "y"}], "model": "z"},
]


def run(tmp_path, content, *flags):
    source = tmp_path / "in.json"
    source.write_text(
        content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8"
    )
    result = main([str(source), str(tmp_path / "out" / "data.jsonl"), *flags])
    lines = (tmp_path / "out" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert result["records"] == len(records)
    return records


def test_llava(tmp_path):
    records = run(tmp_path, LLAVA)
    assert records[0] == LLAVA[0] and records[1] == {name: LLAVA[1][name] for name in ("id", "conversations")}
    jsonl = "\n".join(json.dumps(record) for record in LLAVA)
    assert run(tmp_path, jsonl) == records


@pytest.mark.parametrize(
    "content",
    [
        [{"image_path": "a.png", "caption": "一只猫"}, {"image_path": "b.png", "caption": " a dog "}],
        [{"file_name": "a.png", "text": "一只猫"}, {"image": "b.png", "captions": ["a dog", "another"]}],
        {"a.png": "一只猫", "b.png": "a dog"},
        {
            "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}],
            "annotations": [{"image_id": 3, "caption": "一只猫"}, {"image_id": 7, "caption": "a dog"}],
        },
    ],
    ids=["image_path", "other names", "table", "COCO"],
)
def test_captions(tmp_path, content):
    found = [parse_conversation(record) for record in run(tmp_path, content)]
    assert [one.images for one in found] == [("a.png",), ("b.png",)]
    assert [one.turns for one in found] == [
        ((f"<image>\n{PROMPTS[0]}", "一只猫"),),
        ((f"<image>\n{PROMPTS[1]}", "a dog"),),
    ]
    own = run(tmp_path, content, "--prompt", "这是什么？")
    assert [parse_conversation(record).turns[0][0] for record in own] == ["<image>\n这是什么？"] * 2


def test_every_form_becomes_internvls(tmp_path, capsys):
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "x", "weight": 1}]
    extra = [*messages, {"role": "assistant", "content": "y", "weight": 0}]
    extra.insert(2, {"role": "user", "content": "and?"})
    records = [
        {"image_path": "a.png", "system": "Short.", "messages": [*extra, {"role": "user", "content": "more?"}]},
        {"file_name": "a.png"},
    ]
    found = run(tmp_path, records, "--allowed_share", "0.5")
    said = [("system", "Short."), ("human", "<image>\nWhat?"), ("gpt", "x"), ("human", "and?"), ("gpt", "y")]
    assert [(turn["from"], turn["value"]) for turn in found[0]["conversations"]] == said
    assert found[0]["image"] == "a.png" and found[0]["conversations"][-1]["weight"] == 0
    assert parse_conversation(found[0]).is_trained == (True, False)
    assert len(found) == 1
    printed = capsys.readouterr()
    assert "in.json entry 0: its last question has no answer" in printed.err and "1 of them in part" in printed.out
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}, 5, {"file_name": "b.png"}],
        "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": 2}, 7, {"caption": "of no image"}],
    }
    assert len(run(tmp_path, coco, "--allowed_share", "0.8")) == 1
    printed = capsys.readouterr().err
    assert "annotation 1: image_id 2: not among" in printed and "annotation 2: not a JSON object" in printed


def test_sizes_and_meta_file(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "broken.png").write_text("no image")
    captions = {"a.png": "x", "gone.png": "y", "broken.png": "z"}
    records = run(
        tmp_path,
        captions,
        "--root",
        str(tmp_path / "images"),
        "--meta",
        str(tmp_path / "meta.json"),
        "--allowed_share",
        "0.7",
    )
    assert len(records) == 1 and (records[0]["width"], records[0]["height"]) == (30, 20)
    (source,) = read_meta(tmp_path / "meta.json")
    assert source.length == 1 and source.max_tiles == 12 and source.root == tmp_path / "images"


def test_what_is_wrong(tmp_path, capsys):
    good = [{"image": f"{index}.png", "caption": "x"} for index in range(40)]
    assert len(run(tmp_path, [*good, {"image": "z.png"}])) == 40
    said = capsys.readouterr()
    assert "in.json entry 40: neither conversations" in said.err
    assert "40 conversations, 0 of them in part, 1 skipped" in said.out
    for content, message in (
        ([*good, {}, 3, {"caption": "x"}], "3 of 43 samples cannot be used"),
        ([{"image": "a"}], "no usable record"),
        ("{nothing", "neither JSON nor JSON Lines"),
        ("[]", "no usable record; the file is empty"),
        ({"images": [{"id": 1, "file_name": name} for name in "ab"], "annotations": []}, "two images have the id 1"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tmp_path, content)
    with pytest.raises(FileNotFoundError, match="gone.json: no such file"):
        read_annotations("gone.json")
    with pytest.raises(ValueError, match="give --root"):
        run(tmp_path, LLAVA, "--meta", "meta.json")
    with pytest.raises(FileNotFoundError, match="--root"):
        run(tmp_path, LLAVA, "--root", str(tmp_path / "nowhere"))


def test_questions_about_an_image_are_its_turns(tmp_path, capsys):
    source, output = tmp_path / "vqa.csv", tmp_path / "data.jsonl"
    rows = [f"{image}.png,Q{number}?,{image}{number}" for number in range(5) for image in "ab"]
    source.write_text("\n".join(["image,question,answer", *rows, "a.png,Q?,", ",Q?,x"]), encoding="utf-8")
    main([str(source), str(output), "--turns", "3", "--allowed_share", "0.5"])
    found = [parse_conversation(json.loads(line)) for line in output.read_text().splitlines()]
    assert [(one.images, len(one.turns)) for one in found] == [((f"{name}.png",), n) for name in "ab" for n in (3, 2)]
    turns = [(*one.images, turn.question.removeprefix("<image>\n"), turn.answer) for one in found for turn in one.turns]
    assert sorted(turns) == sorted(tuple(row.split(",")) for row in rows) and turns != sorted(turns)
    shown = capsys.readouterr().err
    assert "vqa.csv line 12: an empty question or answer" in shown and "vqa.csv line 13: image" in shown


def test_contents_of_a_grid(tmp_path, capsys):
    (tmp_path / "line_art").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "line_art" / "cat_img.png")
    (tmp_path / "contents.csv").write_text("content_id,name_zh,group\ncat,猫,\ndog,狗,animals\nx\n", encoding="utf-8")
    main([str(tmp_path / "contents.csv"), str(tmp_path / "data.jsonl"), "--allowed_share", "0.7"])
    (cat,) = [
        parse_conversation(json.loads(line)) for line in (tmp_path / "data.jsonl").read_text("utf-8").splitlines()
    ]
    assert cat.images == ("line_art/cat_img.png",) and {turn.answer for turn in cat.turns} == {"猫", "line art"}
    shown = capsys.readouterr().err
    assert "contents.csv line 3: no drawing" in shown and "contents.csv line 4: 1 cells for 3 columns" in shown


def test_a_meta_file_grows(tmp_path):
    for name in ("one", "two", "one"):
        (tmp_path / f"{name}.json").write_text('{"a.png": "x"}')
        Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
        words = ["--root", str(tmp_path), "--meta", str(tmp_path / "meta.json")]
        main([str(tmp_path / f"{name}.json"), str(tmp_path / f"{name}.jsonl"), *words])
    assert [source.name for source in read_meta(tmp_path / "meta.json")] == ["one", "two"]
    (tmp_path / "meta.json").write_text("[1]")
    with pytest.raises(ValueError, match="meta.json"):
        main([str(tmp_path / "one.json"), str(tmp_path / "one.jsonl"), *words])


@pytest.mark.parametrize(
    "source, records",
    [
        ("captions/data.json", 564),
        ("captions/captions_zh.json", 458),
        ("persona/metadata.jsonl", 222),
        ("vqa/val.csv", 1800),
        ("styles/contents.csv", 1800),
    ],
)
def test_real_sources(real_data, tmp_path, source, records):
    path, output = real_data / source, tmp_path / "data.jsonl"
    result = main([str(path), str(output), "--turns", "1" if "vqa" in source else "6"])
    assert result["records"] == records and not result["skipped"]
    first, *_ = found = [parse_conversation(json.loads(line)) for line in output.read_text("utf-8").splitlines()]
    assert all((path.parent / one.images[0]).is_file() for one in found[::100])
    questions = [turn.question.removeprefix("<image>\n") for turn in first.turns]
    if "contents" in source:
        assert sorted(questions) == sorted(GRID_QUESTIONS.values())
        drawings = [
            dict(zip(GRID_QUESTIONS, sorted(one.turns, key=_place))) for one in found if "u1f990" in one.images[0]
        ]
        assert {one["name_en"].answer for one in drawings} == {"shrimp"}
        assert len({one["style"].answer for one in drawings}) == 6
    elif "captions" in source:
        assert questions[0] == (PROMPTS_ZH if "zh" in source else PROMPTS)[0]


def _place(turn) -> int:
    return list(GRID_QUESTIONS.values()).index(turn.question.removeprefix("<image>\n"))
