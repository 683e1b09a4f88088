"""Training of ViTP and LLaVA on shards: what a sample holds, resuming, processes, and what is not supported."""

import json

import pytest
import torch
from conftest import flags
from processes import torchrun
from shard_server import Faults, picture, serve, write_tar
from tiny.llava import llava_flags
from tiny.vitp import same, vitp_flags, weights

import llava.train
import vitp.train
from common.streaming import shard_reader
from common.streaming.conversations import CAPTION_QUESTION, read_conversation
from common.streaming.shard_reader import read_samples

TURNS = [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "a red star"}]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(shard_reader, "PAUSE", 0.001)


def members(number: int) -> dict[str, bytes]:
    """Conversations about one image, about two, about none, and captions."""
    key, answer = f"{number:05d}", {"from": "gpt", "value": f"a star {number}"}
    kind = number % 4
    images = {f"{key}.{place}.png": picture(number + place, kind="PNG") for place in range(kind)} if kind != 1 else {}
    if kind == 3:
        return {f"{key}.jpg": picture(number), f"{key}.txt": f"a red star {number}".encode()}
    record = {"conversations": [TURNS[0], answer], **({"image": f"somewhere/{number}.jpg"} if kind == 1 else {})}
    return {
        **images,
        **({f"{key}.jpg": picture(number)} if kind == 1 else {}),
        f"{key}.json": json.dumps(record).encode(),
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four shards of 40 samples, two of which cannot be used."""
    folder, number = tmp_path_factory.mktemp("shards"), 0
    for shard in range(4):
        content = {}
        for _ in range(9 + shard % 2):
            content |= members(number)
            number += 1
        if shard == 1:
            content |= {"bad.json": b"{", "bad.jpg": picture(0)}
        if shard == 2:
            content |= {"torn.jpg": picture(0)[:200], "torn.txt": b"a torn picture"}
        write_tar(folder / f"{shard}.tar", content)
    return folder


def test_what_samples_hold(shards):
    read, refused = [], []
    for sample in (sample for shard in range(4) for sample in read_samples(str(shards / f"{shard}.tar"))):
        try:
            read.append(read_conversation(sample))
        except ValueError:
            refused.append(sample["__key__"])
    assert len(read) == 39 and refused == ["bad"]
    for number, (conversation, images) in enumerate(read[:18]):
        assert [image.name for image in images] == sorted(
            name for name in members(number) if name[-3:] in ("png", "jpg")
        )
        assert conversation.turns[0].images == len(images) == len(conversation.images) == (0, 1, 2, 1)[number % 4]
    assert read[3][0].turns == ((f"<image>\n{CAPTION_QUESTION}", "a red star 3"),)
    many = {"__url__": "a.tar", "__key__": "a", "json": json.dumps({"conversations": TURNS}).encode()}
    with pytest.raises(ValueError, match="0 images in the shard for 2 in the record"):
        read_conversation(many | {"json": json.dumps({"images": ["a", "b"], "conversations": TURNS}).encode()})
    many |= {f"{number}.jpg": b"" for number in range(11)}
    assert [image.name for image in read_conversation(many)[1]] == [f"a.{number}.jpg" for number in range(11)]


def vitp_run(parts, output, meta, **more):
    settings = {"meta_path": meta, "max_steps": 14, "save_steps": 4, "per_device_train_batch_size": 2, **more}
    return vitp_flags(parts, output, **{"gradient_accumulation_steps": 2, "drop_path_rate": 0, **settings})


@pytest.mark.slow  # the door is that of LLaVA, whose test is quick
def test_vitp_resumes_within_an_epoch_and_on_other_devices(vitp_parts, shards, tmp_path):
    """Ten steps are an epoch: resumed in the first and in the second."""
    with serve(shards, Faults()) as url:
        (tmp_path / "meta.json").write_text(
            json.dumps({"s": {"annotation": f"{url}/{{0..3}}.tar", "data_augment": True}})
        )
        command = vitp_run(vitp_parts, tmp_path / "run", tmp_path / "meta.json", stream_buffer=32)
        vitp.train.main(command)
        straight = weights(tmp_path / "run")
        for step in (4, 12):
            more = flags(resume_from_checkpoint=tmp_path / "run" / f"checkpoint-{step}")
            vitp.train.main([*command, *more])
            assert same(straight, weights(tmp_path / "run"))
    (log,) = (tmp_path / "run" / "logs").iterdir()
    named = [json.loads(line)["file"].rpartition("/")[2] for line in (log / "skipped.jsonl").read_text().splitlines()]
    assert len(named) == len(set(named)) and set(named) == {"bad", "torn"}


def llava_run(folder, data, output, **more):
    settings = {"stream_buffer": 32, "max_steps": 14, "save_steps": 4, "save_total_limit": 9}
    return [*llava_flags(folder, data, output), *flags(**settings, **more)]


def test_llava_resumes_within_an_epoch(llava_folders, shards, tmp_path, capsys):
    data = str(shards / "{0..3}.tar")
    command = llava_run(llava_folders["llava"], data, tmp_path / "run", dataloader_num_workers=2)
    llava.train.main(command)
    straight = (tmp_path / "run" / "adapter_model.safetensors").read_bytes()
    assert "without validation" in capsys.readouterr().out
    for step in (4, 12):
        more = flags(resume_from_checkpoint=tmp_path / "run" / f"checkpoint-{step}", dataloader_num_workers=0)
        llava.train.main([*command, *more])
        assert (tmp_path / "run" / "adapter_model.safetensors").read_bytes() == straight
    other = [*command, *flags(data=shards / "{0..2}.tar", resume_from_checkpoint=True)]
    with pytest.raises(ValueError, match="conversations was"):
        llava.train.main(other)


@pytest.mark.slow
def test_two_processes_train_on_the_batches_of_one_and_resume_it(vitp_parts, shards, tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps({"drawn": {"annotation": str(shards / "{0..3}.tar")}}))
    more = {"TMAug_prob": 0, "learning_rate": 0.1, "optim": "sgd", "gradient_accumulation_steps": 1, "max_steps": 12}
    one = vitp_run(vitp_parts, tmp_path / "one", tmp_path / "meta.json", **more, per_device_train_batch_size=4)
    two = vitp_run(vitp_parts, tmp_path / "two", tmp_path / "meta.json", **more, ddp_backend="gloo")
    vitp.train.main(one)
    torchrun("vitp/train.py", two)
    both = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(both[0][name], value, atol=1e-4) for name, value in both[1].items())
    resumed = [*two, *flags(output_dir=tmp_path / "one", resume_from_checkpoint=tmp_path / "one" / "checkpoint-4")]
    torchrun("vitp/train.py", resumed)
    again = weights(tmp_path / "one")
    assert all(torch.allclose(both[0][name], value, atol=1e-4) for name, value in again.items())


@pytest.mark.parametrize(
    "more, message",
    [
        ({"packing": True}, "names shards, which --packing does not support"),
        ({"group_by_length": True}, "names shards, which --group_by_length does not"),
        ({"repeat_time": 2}, "drawn.repeat_time: shards are read once"),
        ({"file": True}, "'file' is a file and others are shards"),
        ({"twice": True}, "0.tar: named by 'drawn' and by 'twice'"),
    ],
)
def test_what_is_not_streamed_is_one_line(vitp_parts, shards, tmp_path, more, message):
    repeat = {"repeat_time": more.pop("repeat_time")} if "repeat_time" in more else {}
    meta = {"drawn": {"annotation": str(shards / "{0..3}.tar"), **repeat}}
    if more.pop("twice", False):
        meta["twice"] = {"annotation": "0.tar"}  # beside the meta file
        (tmp_path / "0.tar").symlink_to(shards / "0.tar")
        meta["drawn"] = {"annotation": str(tmp_path / "{0..0}.tar")}
    if more.pop("file", False):
        meta["file"] = {"annotation": str(vitp_parts / "data" / "conversations.jsonl")}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=message):
        vitp.train.main(vitp_run(vitp_parts, tmp_path / "run", tmp_path / "meta.json", **more))
