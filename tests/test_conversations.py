"""Reading conversations: every form of file, what is kept, trimmed and refused."""

import json

import pytest

from common.text.conversations import IMAGE, Conversation, Turn, parse_conversation, read_conversations

TURNS = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This. "}]


def question(value, image="a.png"):
    turns = [{"from": "human", "value": value}, TURNS[1]]
    return parse_conversation({"image": image, "conversations": turns}).turns[0].question


def test_placeholders_are_added_only_where_there_are_none():
    assert question("What?") == "<image>\nWhat?"
    assert question("What?", ["a.png", "b.png"]) == "<image>\n<image>\nWhat?"
    assert question("What is in <image> here?") == "What is in <image> here?"
    assert question("Text alone?", []) == "Text alone?"


def test_what_is_trimmed_and_what_is_kept():
    turns = [
        {"from": "system", "value": "Be short."},
        {"from": "gpt", "value": "Welcome."},
        *TURNS,
        {"from": "human", "value": "And?"},
    ]
    expected = Conversation((Turn("<image>\nWhat?", "This. "),), ("a.png",), "Be short.")
    found = parse_conversation({"image": "a.png", "conversations": turns})
    assert found == expected
    assert found.trimmed == "its first answer has no question and its last question has no answer"
    assert parse_conversation({"conversations": TURNS}).trimmed == ""
    turns[-1] = {"from": "human", "value": "And <image>?"}  # its image goes with it
    turns[2] = {"from": "human", "value": "What is <image>?"}
    found = parse_conversation({"image": ["a.png", "b.png"], "conversations": turns})
    assert found.images == ("a.png",) and found.turns == (("What is <image>?", "This. "),)


def test_parts_fields_and_null_filled_rows():
    parts = [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "text", "text": "Two? "},
        {"type": "image", "image": "b.png", "text": None},
    ]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Yes"}], "from": None, "value": None}
    record = {
        "messages": [{"role": "user", "content": parts}, answer],
        "conversations": None,
        "image": None,
        "system": "",
    }
    expected = Conversation((Turn("<image>\nTwo? <image>", "Yes"),), ("a.png", "b.png"), "")
    assert parse_conversation(record) == expected
    bare = [{**part, "image": None, "image_url": None} for part in parts]
    messages = [{"role": "user", "content": bare}, answer]
    assert parse_conversation({"images": [{"path": "a.png"}, "b.png"], "system": "", "messages": messages}) == expected
    later = [*TURNS, {"from": "human", "value": "and <image>?"}, TURNS[1]]
    found = parse_conversation({"image": "a.png", "conversations": later, "id": 7})
    assert [turn.images for turn in found.turns] == [0, 1]


def test_turns_without_loss():
    answers = [{**TURNS[1], "weight": 0}, {**TURNS[1], "train": True}, {**TURNS[1], "loss": False}]
    found = parse_conversation({"conversations": [turn for answer in answers for turn in (TURNS[0], answer)]})
    assert found.is_trained == (False, True, False) and found.first(1).is_trained == (False,)
    assert parse_conversation({"conversations": [TURNS[0], answers[1]]}).is_trained == ()


def test_first_turns_keep_their_images():
    turns = (Turn("<image> a", "b"), Turn("c", "d"), Turn("<image><image> e", "f"))
    conversation = Conversation(turns, ("1", "2", "3"))
    assert conversation.first(2) == Conversation(turns[:2], ("1",))
    assert conversation.first(3) == conversation


@pytest.mark.parametrize(
    "record, reason",
    [
        ([], "object"),
        ({}, "conversations"),
        ({"conversations": "text"}, "conversations"),
        ({"conversations": []}, "turns"),
        ({"conversations": TURNS[:1]}, "turns"),
        ({"conversations": [TURNS[0], TURNS[0], TURNS[1]]}, "turns"),
        ({"conversations": [TURNS[0], TURNS[0]]}, "turns"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": " "}]}, "empty"),
        ({"conversations": [{"from": "human", "value": 3}, TURNS[1]]}, "value"),
        ({"conversations": [3, TURNS[1]]}, "object"),
        ({"conversations": [{"from": "bot", "value": "a"}, TURNS[1]]}, "bot"),
        ({"conversations": [{"from": ["gpt"], "value": "a"}, TURNS[1]]}, "speaker"),
        ({"conversations": [{"from": "human", "value": IMAGE}, TURNS[1]]}, "1 <image>"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": f"{IMAGE} it is"}]}, "outside"),
        ({"conversations": [{"from": "system", "value": IMAGE}, *TURNS]}, "outside"),
        (
            {"image": "a.png", "conversations": [{"from": "human", "value": IMAGE * 2}, TURNS[1]]},
            "2 <image> .* 1 images",
        ),
        ({"image": [1, 2], "conversations": TURNS}, "image"),
        ({"image": 5, "conversations": TURNS}, "image"),
        ({"image": {}, "conversations": TURNS}, "image"),
        ({"image": "", "conversations": TURNS}, "image"),
        ({"images": [None], "conversations": TURNS}, "image"),
        ({"image": "a.png", "images": ["b.png"], "conversations": TURNS}, "different images"),
        ({"image": "https://a/b.png", "conversations": TURNS}, "https://a/b.png.*not its address"),
        ({"image": "a\0.png", "conversations": TURNS}, "NUL"),
        ({"conversations": [*TURNS, {"from": "tool", "value": "x"}]}, "tool"),
        ({"conversations": [{"from": "function_call", "value": "x"}, *TURNS]}, "function_call"),
        ({"videos": ["a.mp4"], "conversations": TURNS}, "'videos' of a record"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "calls a tool"),
        ({"conversations": [{"from": "system", "value": "a"}, {"from": "system", "value": "b"}, *TURNS]}, "turns"),
        ({"conversations": [*TURNS, {"from": "system", "value": "a"}, *TURNS]}, "turns"),
        ({"system": "a", "conversations": [{"from": "system", "value": "b"}, *TURNS]}, "two system"),
        ({"system": 5, "conversations": TURNS}, "expected text"),
        ({"conversations": [{"from": "human", "value": " "}, TURNS[1]]}, "question is empty"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": "\ud83d"}]}, "half a character"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": float("nan")}]}, "number"),
        ({"conversations": [TURNS[0], {**TURNS[1], "weight": 0}]}, "no answer is trained"),
        ({"conversations": [TURNS[0], {**TURNS[1], "weight": "0"}]}, "expected 0 or 1"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}, TURNS[1]]}, "video"),
        ({"messages": [{"role": "user", "content": ["text"]}, TURNS[1]]}, "part of type"),
        (
            {"image": "a.png", "messages": [{"role": "user", "content": [{"type": "image", "image": "b"}]}, TURNS[1]]},
            "both in the record",
        ),
        ({"file_name": "a.png", "character": {"name": "x"}}, "expected text"),
        ({"file_name": 5, "character": "x"}, "image"),
        ({"file_name": "a.png", "character": " "}, "character"),
    ],
)
def test_what_is_refused(record, reason):
    with pytest.raises(ValueError, match=reason):
        parse_conversation(record)


def write_images(folder):
    for name in ("0.png", "1.png"):
        (folder / name).touch()


def test_every_form_of_file(tmp_path):
    write_images(tmp_path)
    records = [
        {"image": "0.png", "conversations": TURNS},
        {"conversations": TURNS},
        {"image": "absent.png", "conversations": TURNS},
        {"images": ["0.png", "1.png"], "messages": [{"role": "user", "content": "Both?"}, TURNS[1]]},
        "nonsense",
    ]
    lines = "\n".join(json.dumps(record) for record in records)
    for name, text, where in (
        ("list.json", json.dumps(records), "entry"),
        ("lines.jsonl", f"\ufeff{lines}\n\n", "line"),
        ("lines.json", lines, "line"),
    ):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        conversations, skipped = read_conversations(path)
        assert [len(conversation.images) for conversation in conversations] == [1, 0, 2]
        assert conversations[2].images == (tmp_path / "0.png", tmp_path / "1.png")
        assert (
            conversations[2].turns[0] == ("<image>\n<image>\nBoth?", "This. ") and conversations[2].turns[0].images == 2
        )
        assert len(skipped) == 2 and any("absent.png" in reason for reason in skipped.values())
        assert all(key.startswith(f"{path} {where} ") for key in skipped)


def test_personas(tmp_path):
    write_images(tmp_path)
    line = {
        "file_name": "0.png",
        "character": "Mira",
        "title": "Tales",
        "appearance": "Silver  hair.",
        "personality": "",
    }
    (tmp_path / "metadata.jsonl").write_text(f'{json.dumps(line)}\n{{"file_name": "1.png"}}\n{{broken\n\n')
    (conversation,), skipped = read_conversations(tmp_path)
    assert [turn.answer for turn in conversation.turns] == ["This is Mira from Tales.", "Silver hair."]
    assert [turn.images for turn in conversation.turns] == [1, 0] and len(skipped) == 2


def test_a_path_that_is_too_long_skips_its_record(tmp_path):
    records = [{"conversations": TURNS}, {"image": "a" * 5000, "conversations": TURNS}]
    (tmp_path / "data.json").write_text(json.dumps(records))
    conversations, skipped = read_conversations(tmp_path / "data.json")
    assert len(conversations) == len(skipped) == 1


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json"):
        read_conversations(tmp_path / "none.json")
    for text in ("", "[1, 2]", '{"a": 1}', "[\n{", "version https://git-lfs.github.com/spec/v1\n"):
        (tmp_path / "data.json").write_text(text)
        with pytest.raises(ValueError, match="data.json"):
            read_conversations(tmp_path / "data.json")
