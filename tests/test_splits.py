"""Groups of samples that share images, and splits that keep each on one side."""

import json

import numpy as np
from PIL import Image

from clip.dataset import find_pairs, split_pairs
from common.training.conversation_index import index_conversations
from common.training.splits import connected_groups, draw_groups, real_paths
from llava.dataset import ConversationDataset, split_by_image

TURNS = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A star."}]


def test_samples_are_connected_through_others():
    assert connected_groups([["a", "b"], ["c"], ["b", "d"], [], ["d"], []]) == [0, 1, 0, 2, 0, 3]
    assert connected_groups([]) == []


def test_groups_against_a_search():
    rng = np.random.default_rng(0)
    keys = [rng.integers(0, 60, rng.integers(0, 4)).tolist() for _ in range(60)]
    groups = connected_groups(keys)
    for start in range(60):
        reached, front = {start}, [start]
        while front:
            here = front.pop()
            new = {other for other in range(60) if set(keys[other]) & set(keys[here])} - reached
            reached, front = reached | new, [*front, *new]
        assert reached == {other for other in range(60) if groups[other] == groups[start]}


def test_a_group_that_is_too_large_is_passed_over():
    assert draw_groups([0, 0, 0, 1, 2, 2], [0, 1, 2], 2) == {1}
    assert draw_groups([0, 0, 1, 2], [0, 1, 2], 3) == {0, 1} and draw_groups([0, 1], [0, 1], 0) == set()


def write(folder):
    """a.png, the same by a link and as a copy; b.png of the same size in bytes"""
    (folder / "a.bmp").parent.mkdir(exist_ok=True)
    for name, value in (("a", 0), ("copy", 0), ("b", 9)):
        picture = np.zeros((90, 90, 3), np.uint8)
        picture[45, 45] = value
        Image.fromarray(picture).save(folder / f"{name}.bmp")
    (folder / "link.bmp").symlink_to(folder / "a.bmp")


def test_links_and_copies_are_the_same_image(tmp_path):
    write(tmp_path)
    paths = [tmp_path / name for name in ("a.bmp", "link.bmp", "copy.bmp", "b.bmp", "absent.bmp")]
    paths.append(tmp_path / ".." / tmp_path.name / "a.bmp")
    real = real_paths(paths)
    assert len(set(real.values())) == 3 and real[paths[0]] == real[paths[1]] == real[paths[5]]
    assert real[paths[2]] == real[paths[1]] != real[paths[3]]


def test_splits_keep_shared_images_together(tmp_path, monkeypatch):
    write(tmp_path)
    names = ["a", "b", "link", "copy", *map(str, range(16))]
    paths = [tmp_path / f"{name}.bmp" for name in names]
    records = [{"image": path.name, "conversations": TURNS} for path in paths]
    records.append({"image": [path.name for path in paths[4:6]], "conversations": TURNS})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, records)))
    index = index_conversations(tmp_path / "data.jsonl", tmp_path / "cache")
    samples = ConversationDataset(index, tmp_path, None, np.arange(len(index)), tmp_path)
    for path in paths[4:]:
        path.write_text(path.name)
    lines = [json.dumps({"file_name": path.name, "text": f"text {number}"}) for number, path in enumerate(paths)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    pairs, _ = find_pairs(tmp_path)
    held_out = set()
    for seed in range(12):
        train, val = (set(side.places.tolist()) for side in split_by_image(samples, 0.3, seed))
        for group in ({0, 2, 3}, {4, 5, 20}):
            assert group <= train or group <= val
        assert len(train) + len(val) == 21 and 3 <= len(val) <= 6
        held_out |= val
        train, val = ({pair.key for pair in side} for side in split_pairs(pairs, 0.3, seed))
        assert {"a.bmp", "link.bmp"} <= train or {"a.bmp", "link.bmp"} <= val
        assert len(train) + len(val) == 20 and 4 <= len(val) <= 6
    assert 0 in held_out and 20 in held_out
    by_content = samples.image_groups()
    monkeypatch.setattr("llava.dataset.COMPARED", 3)  # of more images, the files are not read
    by_name = samples.select(np.arange(1, 21)).image_groups()
    assert len(set(by_content)) == 17 and len(set(by_name)) == 18 and by_name[3] == by_name[4] == by_name[19]
