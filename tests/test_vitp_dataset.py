"""Samples: what fits, what is left out, what a pack holds."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.images.io import open_image
from common.images.tiling import Tiling
from common.text.chat_labels import IGNORED
from common.training.skip_log import SkipLog
from vitp.chat_template import INTERNVL_SYSTEM, ChatTemplate, prepare_tokenizer
from vitp.dataset import Collator, InstructionDataset
from vitp.demo import train_tokenizer
from vitp.meta_file import read_meta
from vitp.packing import PackedDataset

TILING = Tiling(28, tokens=4, max_tiles=6)


@pytest.fixture(scope="module")
def template():
    tokenizer = train_tokenizer(["What is this? a red star, user system assistant", INTERNVL_SYSTEM] * 5, 800)
    prepare_tokenizer(tokenizer)
    return ChatTemplate(tokenizer)


def turns(*said):
    return [{"from": speaker, "value": text} for text, speaker in zip(said, ["human", "gpt"] * len(said))]


def write(folder, records, images=(), **entry):
    """JSONL, images {name: (width, height)} and a meta file -> its path"""
    (folder / "images").mkdir(exist_ok=True, parents=True)
    random = np.random.default_rng(0)
    for name, (width, height) in dict(images).items():
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    meta = folder / "meta.json"
    meta.write_text(json.dumps({"one": {"root": "images/", "annotation": "data.jsonl", **entry}}))
    return meta


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def load(meta, template, max_seq_length=400, tiling=TILING, **more):
    return InstructionDataset(read_meta(meta), template, tiling, max_seq_length, meta.parent / "cache", **more)


def test_samples(tmp_path, template):
    records = [
        {"image": "wide.png", "conversations": turns("What is this?", "a star")},
        {
            "image": ["wide.png", "tall.png", "wide.png"],
            "conversations": turns("<image> <image>", "a", "and <image>?", "b"),
        },
        {"conversations": turns("text alone", "yes")},
        {"image": "small.png", "conversations": turns("What?\n<image>", "a red star")},
    ]
    images = {"wide.png": (90, 30), "tall.png": (30, 60), "small.png": (20, 20)}
    data = load(write(tmp_path, records, images), template)
    tiles = [4, 3 + 3 + 3, 0, 1]  # wide: 3 + thumbnail; with three images each may have 2: 2 + thumbnail
    for sample, count in zip((data[index] for index in range(4)), tiles):
        assert ("pixel_values" in sample) == (count > 0)
        if count:
            assert sample["pixel_values"].shape == (count, 3, 28, 28)
        assert int((sample["input_ids"] == template.context_id).sum()) == 4 * count
        assert len(sample["input_ids"]) == len(sample["labels"]) == data.lengths()[0] or count != 4
    assert data.lengths() == [len(data[index]["input_ids"]) for index in range(4)]
    one_tile = load(tmp_path / "meta.json", template, tiling=Tiling(28, 4, max_tiles=1))
    assert [len(one_tile[index].get("pixel_values", [])) for index in range(4)] == [1, 3, 0, 1]


def test_meta_settings(tmp_path, template):
    records = [{"image": "a.png", "conversations": turns("q", str(index))} for index in range(10)]
    image = {"a.png": (120, 60)}

    def made(**entry):
        return load(write(tmp_path, records, image, **entry), template)

    assert len(made()) == 10 and len(made(repeat_time=3)) == 30 and len(made(repeat_time=0.35)) == 3
    assert len(made(repeat_time=0.01)) == 1 and len(made(repeat_time=2.3)) == 23
    half = made(repeat_time=2.5)
    assert [half.key(index).rsplit(":")[-1] for index in range(25)] == [*map(str, range(1, 11))] * 2 + [*"12345"]
    assert len(made(max_dynamic_patch=1)[0]["pixel_values"]) == 1  # the meta file's limit, not --max_dynamic_patch
    assert len(made(max_dynamic_patch=2)[0]["pixel_values"]) == 3
    plain, jpeg = made()[0]["pixel_values"], made(data_augment=True)
    first, again = jpeg[0]["pixel_values"], jpeg[0]["pixel_values"]
    assert torch.equal(first, again) and not torch.equal(first, plain) and (first - plain).abs().mean() < 0.5
    qualities = [
        quality
        for tile, pixels in zip(TILING.cut(open_image(tmp_path / "images/a.png"), 6), first)
        for quality in range(75, 101)
        if torch.equal(TILING.normalise([as_jpeg(tile, quality)])[0], pixels)
    ]
    assert len(qualities) == len(first) == 3 and len(set(qualities)) > 1  # each tile by itself, as InternVL does
    jpeg.set_epoch(1)
    other = [jpeg[index]["pixel_values"] for index in range(4)]
    assert any(not torch.equal(first, one) for one in other)


def test_several_sources(tmp_path, template):
    for name in ("a", "b"):
        write(tmp_path / name, [{"conversations": turns(name, name)}])
    meta = {name: {"annotation": f"{name}/data.jsonl", "length": 5} for name in ("a", "b")}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    data = load(tmp_path / "meta.json", template)
    assert len(data) == 2 and data.counts == {"a": 1, "b": 1} and [source.length for source in data.sources] == [5, 5]
    texts = [template.tokenizer.decode(data[index]["input_ids"]) for index in range(2)]
    assert "user\na<" in texts[0] and "user\nb<" in texts[1]


def test_bad_lines_are_named_and_left_out(tmp_path, template):
    good = [{"conversations": turns("q", f"answer {index}")} for index in range(60)]
    records = [
        *good[:30],
        '{"conversations": [',
        *good[30:],
        "",
        '{"image": 3, "conversations": []}',
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ]
    log = tmp_path / "skipped.jsonl"
    data = load(write(tmp_path, records), template, skipped=SkipLog(log))
    assert len(data) == 60 and data.key(0).endswith("data.jsonl:1") and data.key(30).endswith("data.jsonl:32")
    named = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["file"].rsplit(":", 1)[1] for entry in named] == ["31", "63", "64"] and all(
        e["reason"] for e in named
    )
    assert "answer 30" in template.tokenizer.decode(data[30]["input_ids"])


def test_too_many_bad_lines_stop_the_run(tmp_path, template):
    meta = write(tmp_path, [{"conversations": turns("q", "a")}] * 20 + ["{"] * 2)
    with pytest.raises(ValueError, match="2 of 22 samples cannot be used, more than 5%; the first: .*data.jsonl:21: "):
        load(meta, template)
    with pytest.raises(ValueError, match="no usable sample; .*data.jsonl:1: not JSON"):
        load(write(tmp_path, ["{"]), template)


def test_broken_images_give_way_to_the_next_sample(tmp_path, template):
    names = [f"{index}.png" for index in range(30)]
    records = [{"image": name, "conversations": turns("q", name)} for name in names]
    meta = write(tmp_path, records, dict.fromkeys(names, (20, 20)))
    (tmp_path / "images" / "3.png").write_bytes(b"not an image")
    data = load(meta, template)
    assert torch.equal(data[3]["input_ids"], data[4]["input_ids"]) and list(data.skipped.skipped) == [data.key(3)]
    assert data.lengths()[3] is None
    (tmp_path / "images" / "9.png").unlink()
    with pytest.raises(ValueError, match="2 of 30 samples"):
        data[9]


def test_turned_photographs(tmp_path, template):
    meta = write(tmp_path, [{"image": "a.jpg", "conversations": turns("q", "a")}])
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (90, 30)).save(tmp_path / "images" / "a.jpg", exif=exif)
    data = load(meta, template)
    assert data[0]["pixel_values"].shape[0] == 4 and data.lengths()[0] == len(data[0]["input_ids"])


LONG = "a red star " * 60


def test_long_conversations_lose_their_last_turns(tmp_path, template):
    talk = turns("What is <image>?", "a star", "and?", LONG, "and <image>?", "red")
    meta = write(tmp_path, [{"image": ["a.png", "a.png"], "conversations": talk}], {"a.png": (90, 60)})
    whole = load(meta, template, 600)[0]
    assert len(whole["pixel_values"]) == 6
    short = load(meta, template, 150)[0]
    assert len(short["input_ids"]) <= 150 and len(short["pixel_values"]) == 7  # alone it may have all six tiles
    text = template.tokenizer.decode([label for label in short["labels"].tolist() if label != IGNORED])
    assert text == "a star<|im_end|>"
    data = load(meta, template, 150)
    assert data[0] and data.trimmed.skipped == {data.key(0): "2 of its 3 turns do not fit into --max_seq_length 150"}


def test_one_long_turn_gets_fewer_tiles_then_a_shorter_answer(tmp_path, template):
    meta = write(tmp_path, [{"image": "a.png", "conversations": turns("What?", LONG)}], {"a.png": (90, 60)})
    full = load(meta, template, 1000)[0]
    length = len(full["input_ids"])
    for limit in range(length, 60, -7):
        sample = load(meta, template, limit)[0]
        tiles = len(sample["pixel_values"])
        assert int((sample["input_ids"] == template.context_id).sum()) == 4 * tiles  # image tokens are never cut
        assert len(sample["input_ids"]) <= limit
        answer = [label for label in sample["labels"].tolist() if label != IGNORED]
        ended = template.end_token_id in answer
        assert answer and (ended or tiles == 1)
    data = load(meta, template, 20)
    assert data.read(0) is None
    assert "no room for an answer in --max_seq_length 20" in data.skipped.skipped[data.key(0)]


@pytest.fixture
def mixed(tmp_path, template):
    random = np.random.default_rng(1)
    records, images = [], {}
    for index in range(40):
        answer = "star " * int(random.integers(1, 40))
        if index % 4:
            images[f"{index}.png"] = (int(random.integers(20, 100)), int(random.integers(20, 100)))
            records.append({"image": f"{index}.png", "conversations": turns("What?", answer + str(index))})
        else:
            records.append({"conversations": turns("What?", answer + str(index))})
    return load(write(tmp_path, records, images), template, 260)


def test_packs_hold_every_sample_once(mixed, template):
    packed = PackedDataset(mixed, seed=0)
    assert sorted(index for pack in packed.packs for index in pack) == list(range(40))
    assert len(packed) < 20 and max(packed.lengths()) <= 260
    for pack, length, sample in zip(packed.packs, packed.lengths(), (packed[index] for index in range(len(packed)))):
        assert len(sample["input_ids"]) == length
        whole = [mixed[index] for index in pack]
        for place, one in enumerate(whole):
            mine = sample["sample_ids"] == place
            for name in ("input_ids", "labels"):
                assert torch.equal(sample[name][mine], one[name])
            assert sample["position_ids"][mine].tolist() == list(range(len(one["input_ids"])))
        pixels = [one["pixel_values"] for one in whole if "pixel_values" in one]
        assert torch.equal(sample["pixel_values"], torch.cat(pixels)) if pixels else "pixel_values" not in sample
    assert PackedDataset(mixed, seed=1).packs != packed.packs


def test_a_wrong_size_in_the_annotation_does_not_burst_a_pack(tmp_path, template):
    record = {"image": "a.png", "width": 20, "height": 20, "conversations": turns("What?", "a star")}
    meta = write(tmp_path, [record] * 3, {"a.png": (90, 60)})
    room = 2 * len(load(meta, template)[0]["input_ids"]) + 2
    data = load(meta, template, room)
    data.skipped.limit = 1
    packed = PackedDataset(data)
    assert len(packed) == 1 and len(packed[0]["input_ids"]) <= room
    assert packed[0]["sample_ids"].max() == 1 and "not of the width and height" in str(data.skipped.skipped)


def test_batches(mixed, template):
    samples = [mixed[index] for index in range(5)]
    batch = Collator(pad_token_id=int(samples[1]["input_ids"][3]))(samples)  # a token that also stands in the text
    for row, sample in enumerate(samples):
        length = len(sample["input_ids"])
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["input_ids"].shape[1] - length)
        assert torch.equal(batch["input_ids"][row, :length], sample["input_ids"])
        assert (batch["labels"][row, length:] == IGNORED).all()
    assert len(batch["pixel_values"]) == sum(len(sample.get("pixel_values", [])) for sample in samples)
    assert "pixel_values" not in Collator(0)([samples[0]]) and "sample_ids" not in batch
    packed = Collator(0)([PackedDataset(mixed)[index] for index in range(3)])
    assert torch.equal(packed["sample_ids"] < 0, packed["attention_mask"] == 0)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not JSON"),
        ("[]", "expected"),
        ('{"a": {"root": "."}}', "meta.json: a.annotation is missing"),
        ('{"a": {"root": ".", "annotation": "b.jsonl"}}', "no such annotation of 'a'"),
        ('{"a": {"root": "gone", "annotation": "meta.json"}}', "no such root of 'a'"),
        ('{"a": {"annotation": ""}}', "no such annotation of 'a'"),
        ('{"a": {"annotation": "meta.json", "repeat_time": 0}}', "a.repeat_time: .* greater than 0"),
        ('{"a": {"annotation": "meta.json", "repeat_time": -1.5}}', "a.repeat_time: .* greater than 0"),
        ('{"a": {"annotation": "meta.json", "repeat_time": "2"}}', "a.repeat_time: .* number, got '2'"),
        ('{"a": {"annotation": "meta.json", "repeat_time": true}}', "a.repeat_time"),
        ('{"a": {"annotation": "meta.json", "repeat_time": NaN}}', "a.repeat_time"),
        ('{"a": {"annotation": "meta.json", "repeat_time": 1e9}}', "a.repeat_time: .* 1000"),
        ('{"a": {"annotation": "meta.json", "data_augment": "false"}}', "a.data_augment: .* boolean, got 'false'"),
        ('{"a": {"annotation": "meta.json", "data_augment": 1}}', "a.data_augment"),
        ('{"a": {"annotation": "meta.json", "length": "3"}}', "a.length: .* integer"),
        ('{"a": {"annotation": "meta.json", "max_dynamic_patch": "6"}}', "a.max_dynamic_patch: .* integer"),
        ('{"a": {"annotation": "meta.json", "max_dynamic_patch": 2.5}}', "a.max_dynamic_patch: .* integer"),
        ('{"a": {"annotation": ["meta.json"]}}', "a.annotation"),
        ('{"a": {"annotation": "meta.json", "root": 5}}', "a.root"),
        ('{"a": {"annotation": "a\\u0000b"}}', "a.annotation: .*NUL"),
        ('{"a": {"annotation": "meta.json", "length": 1, "length": 2}}', "twice"),
    ],
)
def test_what_is_wrong_with_a_meta_file(tmp_path, content, message):
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        read_meta(tmp_path / "meta.json")


def test_the_repositorys_own_instruction_data(real_data, template, tmp_path):
    sources = read_meta(real_data / "instruct" / "meta.json")
    data = InstructionDataset(sources, template, Tiling(448, 256, max_tiles=6), 4096, tmp_path)
    assert len(data) == sum(source.length for source in data.sources) and not data.skipped.skipped
    for index in range(0, len(data), 300):
        sample = data[index]
        assert int((sample["input_ids"] == template.context_id).sum()) == 256 * len(sample["pixel_values"])
