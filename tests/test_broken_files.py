"""Malformed files for every reader of files of unknown origin.

A reader names the problem in one line, or skips the record; it never raises another error, and never opens files
outside the data.
"""

import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import config
from blip2_gated.dataset import Columns
from blip2_gated.dataset import read_samples as read_questions
from clip.pairs import find_pairs, read_texts
from common.cli.errors import one_line
from common.cli.settings import read_settings
from common.images.io import open_image, path_below
from common.models.checkpoint_file import read_tensors
from common.models.model_folder import load_model
from common.text.conversations import read_conversations
from common.training.conversation_index import index_conversations
from llava.config import read_values
from llava.eval_dataset import read_samples
from llava.request_io import read_requests
from targets import load_target
from vitp.dataset import image_size
from vitp.json2jsonl import read_annotations, to_conversation
from vitp.meta_file import read_meta

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

SAID = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A star."}]
RECORD = {"image": "a.png", "caption": "a star", "conversations": SAID, "text": "a star"}
META = {"one": {"root": ".", "annotation": "lines.jsonl", "repeat_time": 1, "max_dynamic_patch": 6}}
JSONL = "".join(json.dumps(RECORD) + "\n" for _ in range(3)).encode()
TABLE = b'image,question,answer,style,text\na.png,What?,A star,flat,a star\na.png,"Two,\nlines?",No,,none\n'
SETTINGS = b'{"training": {"batch_size": 4}, "epochs": 2, "ignore_targets": ["mask"]}'


def torch_file(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def pickled(content) -> bytes:
    """As torch wrote files before its zips."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 9, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def jpeg() -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 9, 3), dtype=np.uint8)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def shard() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (
            ("000.png", png()),
            ("000.txt", b"a star"),
            ("001.png", png()),
            ("001.json", b'{"a": 1}'),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def counted(read):
    """-> how many rows a reader returns, and how many it skips."""

    def count(path: Path) -> list[int]:
        found = read(path)
        return [len(part) for part in (found if isinstance(found, tuple) else (found,))]

    return count


def read_meta_and_lines(path: Path) -> list:
    return [row for source in read_meta(path) for row in index_conversations(source.annotation, path.parent / "cache")]


def read_shard(path: Path) -> list:
    return [open_image(pair.image) for pair in find_pairs(path)[0]]


def convert_all(path: Path) -> list:
    return [to_conversation(record, number, ["What?"]) for number, (_, record) in enumerate(read_annotations(path))]


READERS = {  # name of the file: what is in it, who reads it, what that gives
    "clip.json": (json.dumps([RECORD] * 2).encode(), counted(find_pairs), [1, 0]),
    "clip.jsonl": (JSONL, counted(find_pairs), [1, 0]),
    "shard.tar": (shard(), counted(read_shard), [1]),
    "texts.jsonl": (JSONL, counted(read_texts), [1, 1, 0]),
    "texts.txt": ("a star\nein Stern\n星\n".encode(), counted(read_texts), [3, 0, 0]),
    "llava.json": (json.dumps([RECORD] * 2).encode(), counted(read_conversations), [2, 0]),
    "llava.jsonl": (JSONL, counted(read_conversations), [3, 0]),
    "samples.jsonl": (JSONL, counted(read_samples), [3, 0]),
    "samples.csv": (TABLE, counted(read_samples), [2, 0]),
    "requests.csv": (TABLE, counted(read_requests), [2]),
    "requests.jsonl": (JSONL, counted(read_requests), [3]),
    "meta.json": (json.dumps(META).encode(), counted(read_meta_and_lines), [3]),
    "lines.jsonl": (JSONL, counted(lambda path: read_meta_and_lines(path.parent / "meta.json")), [3]),
    "records.json": (json.dumps([RECORD] * 2).encode(), counted(convert_all), [2]),
    "records.jsonl": (JSONL, counted(convert_all), [3]),
    "questions.csv": (TABLE, counted(lambda path: read_questions(path, path.parent, "csv", Columns())), [2, 0]),
    "settings.yaml": (SETTINGS, lambda path: read_settings(config, ["--config", str(path)]).batch_size, 4),
    "training.json": (b'{"lora_rank": 7}', lambda path: read_values(["--config", str(path)])["lora_rank"], 7),
    "a_embed.pt": (torch_file(torch.randn(3, 4)), lambda path: load_target(path, "embed").shape, (3, 4)),
    "model.pth": (
        torch_file({"format": 1, "kind": "x", "build": {}, "model_state_dict": {"a": torch.ones(2)}}),
        counted(lambda path: load_model(path, "x")),
        [4],
    ),
    "legacy.pt": (pickled({"a": torch.ones(2)}), counted(read_tensors), [1]),
    "image.png": (png(), lambda path: open_image(path).size, (9, 12)),
    "image.jpg": (jpeg(), lambda path: open_image(path).size, (12, 9)),
    "size.jpg": (jpeg(), image_size, (12, 9)),
}


def mutate(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Each edit: at a place, so many bytes are replaced by others."""
    for place, length, new in edits:
        place %= len(content) + 1
        content = content[:place] + new + content[place + length :]
    return content


EDITS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40), st.binary(max_size=6)), min_size=1, max_size=4)
WORDS = st.sampled_from(["", "a.png", "..", "/", "\0", "\ud800", "x", "human", "<image>"])
KEYS = st.sampled_from([*RECORD, "from", "value", "id", "file_name", "image_id"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def survives(name: str, content: bytes) -> None:
    """The reader returns, or raises what a script shows as one line that names a file."""
    with TemporaryDirectory() as folder:
        Path(folder, "a.png").write_bytes(png())
        Path(folder, "meta.json").write_bytes(READERS["meta.json"][0])
        Path(folder, "lines.jsonl").write_bytes(JSONL)
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            READERS[name][1](path)
        except (ValueError, OSError) as error:
            line = one_line(error)
            assert line and "\n" not in line and not isinstance(error, UnicodeError), repr(error)


@pytest.mark.parametrize("name", READERS)
def test_the_file_as_it_should_be_is_read(name, tmp_path):
    content, read, expected = READERS[name]
    for other in ("meta.json", "lines.jsonl", name):
        (tmp_path / other).write_bytes(READERS[other][0])
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == expected


@pytest.mark.parametrize("name", READERS)
def test_mutated_and_random_bytes(name):
    @OFTEN
    @given(EDITS)
    def mutated(edits):
        survives(name, mutate(READERS[name][0], edits))

    @OFTEN
    @given(st.binary(max_size=200))
    @example(b"")
    @example(b"\xff\xfe\x00\x00")
    @example(b"[" * 100_000)
    @example(b'{"a":' * 100_000)
    @example(b"\x00" * 300)
    def random(content):
        survives(name, content)

    mutated()
    random()


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith((".json", ".jsonl", ".yaml"))])
def test_json_of_any_shape(name):
    keys = [*RECORD, "file_name", "messages", "images", "annotations", "traits"]
    fields = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, VALUES))

    @OFTEN
    @given(VALUES | st.lists(fields, max_size=3) | fields | st.dictionaries(st.text(max_size=3), fields, max_size=2))
    def shaped(content):
        survives(name, json.dumps(content).encode())

    shaped()


def scene(folder: Path) -> Path:
    """A data folder with one good image, and a secret beside it that is an image too."""
    data = folder / "data"
    data.mkdir()
    Image.new("RGB", (9, 9), "red").save(data / "a.png")
    Image.new("RGB", (9, 9), "blue").save(folder / "secret.png")
    return data


@pytest.mark.parametrize("name", ["../secret.png", "x/../../secret.png", "{folder}/secret.png", "../../etc/passwd"])
def test_clip_data_cannot_name_files_outside_its_folder(tmp_path, name):
    data, name = scene(tmp_path), name.format(folder=tmp_path)
    (data / "data.json").write_text(json.dumps([{**RECORD, "id": 1}, {**RECORD, "image": name, "id": 2}]))
    pairs, skipped = find_pairs(data / "data.json")
    assert len(pairs) == 1 and name in " ".join(skipped.values()) and "leaves" in " ".join(skipped.values())
    with pytest.raises(ValueError, match="leaves"):
        path_below(data, name)


def test_tables_and_conversations_may_lie_beside_their_images(tmp_path):
    data = scene(tmp_path)
    names = ["a.png", "../secret.png", str(tmp_path / "secret.png"), "../../gone.png"]
    (data / "data.jsonl").write_text("".join(json.dumps({**RECORD, "image": name}) + "\n" for name in names))
    (data / "table.csv").write_text(
        "image,question,answer,style\n" + "".join(f"{one},What?,A star,\n" for one in names)
    )
    for samples, skipped in (
        read_conversations(data / "data.jsonl"),
        read_questions(data / "table.csv", data, "csv", Columns()),
    ):
        assert len(samples) == 3 and "gone.png" in " ".join(skipped.values())


def test_members_of_a_shard_are_read_in_place_whatever_their_names_say(tmp_path):
    shard, content = tmp_path / "evil.tar", png()
    with tarfile.open(shard, "w") as archive:
        for name in ("../../000.png", "/etc/001.png", "link.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == "link.png":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(content) if member.size else None)
        for name in ("../../000.txt", "/etc/001.txt", "link.txt"):
            member = tarfile.TarInfo(name)
            member.size = 6
            archive.addfile(member, io.BytesIO(b"a star"))
    before = sorted(tmp_path.parent.rglob("*"))
    pairs, skipped = find_pairs(shard)
    assert [open_image(pair.image).size for pair in pairs] == [(9, 12)] * 2 and len(skipped) == 1
    assert sorted(tmp_path.parent.rglob("*")) == before  # nothing was unpacked


def test_yaml_tags_and_pickles_run_nothing(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(f"epochs: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(ValueError, match="evil.yaml: cannot be read as JSON or YAML"):
        read_settings(config, ["--config", str(tmp_path / "evil.yaml")])

    class Evil:
        def __reduce__(self):
            import os

            return os.system, (f"touch {mark}",)

    torch.save({"model_state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="refused, it holds Python objects"):
        load_model(tmp_path / "evil.pth", "x")
    assert not mark.exists()


def test_a_laughing_yaml_does_not_hang(tmp_path):
    """A billion laughs: nine lines of references that would unfold to 10^9 words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="laughs.yaml: unknown setting 'a0'"):
        read_settings(config, ["--config", str(tmp_path / "laughs.yaml")])
