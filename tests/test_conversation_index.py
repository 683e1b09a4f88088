"""Index of conversations: equal to reading the file, made anew when it changes, read by one handle a process."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from common.text.conversations import read_conversations
from common.training import conversation_index
from common.training.conversation_index import index_conversations, measure_lengths
from common.training.skip_log import SkipLog
from llava.dataset import ConversationDataset, TokenizedConversation

TURNS = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A star."}]


def records():
    return [
        {"image": "0.png", "conversations": TURNS, "width": 3},
        {"conversations": [*TURNS, {"from": "human", "value": "more?"}]},
        {"conversations": 5},
        {"images": ["0.png", "./1.png"], "messages": [{"role": "user", "content": "图？ \ufeff"}, TURNS[1]]},
        "nonsense",
        {"file_name": "1.png", "character": "Mira", "title": "Tales"},
        {"conversations": [{"from": "system", "value": "Short."}, *TURNS, {**TURNS[0], "value": "x" * 5000}, TURNS[1]]},
    ]


FILES = {
    "lines.jsonl": ("\n".join(map(json.dumps, records())) + "\n\n{broken\n").encode(),
    "windows.jsonl": b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, records())).encode() + b"\r\n\xff\r\n",
    "mac.jsonl": "\r".join(map(json.dumps, records())).encode(),
    "wide.jsonl": "\n".join(map(json.dumps, records())).encode("utf-16"),
    "list.json": json.dumps(records(), ensure_ascii=False, indent=1).encode(),
    "wide.json": json.dumps(records()).encode("utf-16"),
    "lines.json": "\n".join(map(json.dumps, records())).encode(),
    "lines.txt": "\n".join(map(json.dumps, records())).encode(),
    "one.json": json.dumps(records()[0], indent=1).encode(),
    "people.csv": b"file_name,character\n0.png,Mira\n1.png\n1.png,Ann\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("block", [2**23, 200])
def test_an_index_is_the_file(tmp_path, monkeypatch, name, block):
    """`block` bytes are parsed at once: all of a file, or a line or two, by two processes."""
    monkeypatch.setattr(conversation_index, "BLOCK", block)
    path = tmp_path / name
    path.write_bytes(FILES[name])
    for image in ("0.png", "1.png"):
        (tmp_path / image).touch()
    read, skipped = read_conversations(path)
    for index in (index_conversations(path, tmp_path / "cache"), index_conversations(path, tmp_path / "cache")):
        assert len(index) == len(read) > 0
        for number, conversation in enumerate(read):
            assert f"{path} {index.unit} {index.number(number)}" == conversation.key
            indexed = index[number]
            assert (indexed.turns, indexed.system, indexed.record) == (
                conversation.turns,
                conversation.system,
                conversation.record,
            )
            assert [path.parent / image for image in indexed.images] == list(conversation.images)
            assert index.trimmed.get(index.number(number), "") == conversation.trimmed
        assert {f"{path} {index.unit} {number}": reason for number, reason in index.skipped.items()} == skipped
        images = [image for conversation in read for image in conversation.images]
        assert len(index.images) == len(images) == index.rows["images"].sum()
        assert len(set(index.images.tolist())) == len({os.path.normpath(image) for image in images})


def test_a_file_that_changes_is_indexed_anew(tmp_path, capsys):
    path, cache = tmp_path / "data.jsonl", tmp_path / "cache"
    path.write_bytes(FILES["lines.jsonl"])
    first = index_conversations(path, cache)
    path.write_bytes(FILES["lines.jsonl"].replace(b"A star.", b"A moon!"))  # as many bytes
    os.utime(path, ns=(0, 0))
    changed = index_conversations(path, cache)
    assert changed[0].turns[0].answer == "A moon!" and changed.digest != first.digest
    for rows in cache.glob("*.rows"):
        rows.write_bytes(rows.read_bytes()[:-1] + b"\1")
    again = index_conversations(path, cache)
    assert "the cache is damaged; it is made again" in capsys.readouterr().err
    assert (again.rows == changed.rows).all() and again.skipped == changed.skipped


class Lines:
    """Items of a data set: the process, how often it has opened the file, what it read."""

    def __init__(self, index):
        self.index = index

    def __len__(self):
        return len(self.index)

    def __getitem__(self, number):
        turns = self.index[number].turns
        return os.getpid(), id(self.index.file), self.index.file.fileno(), turns[0].answer


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_every_process_opens_the_file_once(tmp_path, method):
    path = tmp_path / "data.jsonl"
    rows = [{"conversations": [TURNS[0], {"from": "gpt", "value": str(number)}]} for number in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    index = index_conversations(path, tmp_path / "cache")
    assert index[39].turns[0].answer == "39"  # the file is open in this process, too
    loader = DataLoader(Lines(index), batch_size=None, num_workers=2, multiprocessing_context=method)
    items = [item for _ in range(2) for item in loader]
    assert [item[3] for item in items] == 2 * [str(number) for number in range(40)]
    handles = {tuple(item[:3]) for item in items}
    processes = {process for process, *_ in handles}
    assert len(processes) == len(handles) == 4 and os.getpid() not in processes


def test_lengths_are_kept_and_what_is_unusable_is_measured_again(tmp_path):
    measured, broken = [], {3}

    def measure(sample):
        measured.append(sample)
        if sample in broken:
            raise ValueError(f"{sample} is broken")
        return sample + 1

    lengths, reasons = measure_lengths(measure, 6, tmp_path, ("a",))
    assert lengths.tolist() == [1, 2, 3, 0, 5, 6] and reasons == {3: "3 is broken"}
    measured.clear()
    broken.clear()
    lengths, reasons = measure_lengths(measure, 6, tmp_path, ("a",))
    assert lengths.tolist() == [1, 2, 3, 4, 5, 6] and reasons == {} and measured == [3]
    measure_lengths(measure, 6, tmp_path, ("b",))
    assert len(measured) == 7


def test_broken_images_are_named_once_by_all_workers(tmp_path):
    """Of images that are far beyond what is read at the start."""
    for number in range(300):
        Image.new("L", (8, 8), number % 256).save(tmp_path / f"{number}.png")
    for number in (131, 132):
        (tmp_path / f"{number}.png").write_bytes(b"not an image")
    rows = [{"image": f"{number}.png", "conversations": TURNS} for number in range(300)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    index, reads = index_conversations(tmp_path / "data.jsonl", tmp_path / "cache"), []
    for workers in (0, 2):
        log = tmp_path / f"skipped{workers}.jsonl"
        data = Pictures(index, tmp_path, None, np.arange(300), tmp_path, SkipLog(log))
        loader = DataLoader(data, batch_size=4, num_workers=workers, collate_fn=list)
        reads.append([name for _ in range(2) for batch in loader for name in batch])
        named = [json.loads(line) for line in log.read_text().splitlines()]
        assert sorted(row["file"] for row in named) == [data.key(131), data.key(132)]
        assert all("not an image that Pillow can read" in row["reason"] for row in named)
    expected = [f"{133 if number in (131, 132) else number}.png" for number in range(300)]
    assert reads[0] == reads[1] == 2 * expected


class Pictures(ConversationDataset):
    """Names of the images, which have been read."""

    def read(self, number):
        self.tokenizer = lambda conversation, sizes: TokenizedConversation(conversation, None)
        item = super().read(number)
        return item and item[0].conversation.images[0].name
