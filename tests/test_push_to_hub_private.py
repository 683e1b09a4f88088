"""What a folder holds besides weights and words stays here, or ends the upload with a line."""

import json

import pytest
from safetensors.numpy import save
from tiny.hub import front

from common.models.model_card import MARK
from tools import push_to_hub

TOKEN = "hf_" + "a1B2" * 6
CARD = "---\nlicense: mit\n---\n" + MARK


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("model.safetensors", save({}, {"command": f"a.py --token {TOKEN}"}), "'command' of its header holds"),
        ("model.safetensors", save({}, {"data": "/home/me/cats"}), "'data' of its header names a folder"),
        ("model.safetensors", save({}) + TOKEN.encode(), "cannot be read as safetensors"),
        ("more.safetensors", b"words", "more.safetensors: cannot be read as safetensors"),
        ("image.onnx", b"\0\1/home/me/export.py\0", "byte 2 names a folder"),
        ("image.onnx", b"\0\1" + TOKEN.encode(), "byte 2 holds a password or a token"),
        ("tokenizer.json", json.dumps({"a": TOKEN}).encode(), "tokenizer.json: byte 7 holds"),
        ("vocab.txt", f"a\n{TOKEN}".encode(), "vocab.txt: byte 2 holds"),
        ("spiece.model", TOKEN.encode(), "spiece.model: byte 0 holds"),
        ("chat_template.jinja", b"{{ a }}\n/home/me/x", "line 2 names a folder"),
        ("README.md", f"{CARD}\nsee /Users/me/x".encode(), "README.md: line 5 names a folder"),
        ("README.md", f"---\nlicense: [\n---\n{MARK}".encode(), "README.md: its head is not YAML"),
        ("README.md", MARK.encode() + b"\xff\xff", "README.md: "),
        ("config.json", b"[]", "config.json: expected"),
    ],
)
def test_private_parts_of_files_that_go_up_as_they_are(trainers_folder, uploads, name, content, words):
    (trainers_folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
    assert uploads == [] and "\n" not in str(raised.value) and TOKEN not in str(raised.value)


def test_the_card_shows_nothing_private_of_the_records(trainers_folder, tmp_path, uploads):
    (tmp_path / "outside.md").write_text(f"{CARD}\nprivate words")
    (trainers_folder / "README.md").unlink()
    (trainers_folder / "README.md").symlink_to(tmp_path / "outside.md")
    results = {"loss": 0.5, "eval/a b@1": 0.25, "/home/me/x": 1.0, TOKEN: 1.0, "a|b\n# c": 1.0}
    (trainers_folder / "results.json").write_text(json.dumps(results))
    run = {"commit": "abc", "started": "2026-01-02 03:04:05", "torch": TOKEN, "python": "3 /home/me/python"}
    (trainers_folder / "run.json").write_text(json.dumps(run))
    push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
    card = uploads[-1]["files"]["README.md"].decode()
    assert front(card)["metrics"] == ["loss", "eval/a b@1"] and "commit abc, started 2026-01-02 03:04:05." in card
    assert not any(word in card for word in ("private words", TOKEN, "/home/me", "# c"))
