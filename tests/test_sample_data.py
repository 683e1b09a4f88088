"""Sample data: reproducible bytes, true captions and boxes, every layout's files, styles beyond colour."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.samples.hash_text_encoder import hash_text
from common.samples.layouts import CHINESE_STYLES, LAYOUTS, PORTRAIT_STYLES, create_sample_dataset, offer_samples
from common.samples.portraits import EYES, HAIR, random_portrait
from common.samples.sample_folder import SampleFolder, is_drawn, is_vacant
from common.samples.scenes import BACKGROUNDS, CHINESE, NUMBERS, RELATIONS, questions, random_scene
from common.samples.shapes import COLOURS, KINDS
from common.samples.styles import STYLES

SIZE = 32  # pixels a side, where only the files matter


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """Each layout, 34 samples."""
    folder = tmp_path_factory.mktemp("sample_data")
    for layout in LAYOUTS:
        create_sample_dataset(folder / layout, 34, seed=3, layout=layout, size=SIZE)
    return {layout: folder / layout for layout in LAYOUTS}


@pytest.fixture(scope="module")
def scenes() -> list:
    return [random_scene(np.random.default_rng(seed)) for seed in range(300)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_arguments_give_same_bytes(layout, roots, tmp_path):
    written = create_sample_dataset(tmp_path, 34, seed=3, layout=layout, size=SIZE)
    assert digests(tmp_path) == digests(roots[layout])
    assert set(written.files) == set(digests(tmp_path)) - {"sample_data.json"}
    assert written.num_images == len(list(tmp_path.rglob("*.png"))) >= 34
    create_sample_dataset(tmp_path / "other", 1, seed=4, layout=layout, size=SIZE)
    images = {path.relative_to(tmp_path / "other"): path for path in (tmp_path / "other").rglob("*.png")}
    assert any(path.read_bytes() != (tmp_path / name).read_bytes() for name, path in images.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_does_not_depend_on_how_many_there_are(layout, roots, tmp_path):
    create_sample_dataset(tmp_path, 11, seed=3, layout=layout, size=SIZE)
    many = digests(roots[layout])
    few = {name: digest for name, digest in digests(tmp_path).items() if name.endswith((".png", ".pt", ".txt"))}
    assert few.items() <= many.items()
    for name in ("scenes.json", "data.json", "captions_zh.json"):
        if (tmp_path / name).is_file():
            rows = read_json(tmp_path / name)
            assert rows == read_json(roots[layout] / name)[: len(rows)]
    for name in ("metadata.jsonl", "conversations.jsonl", "train.csv"):
        if (tmp_path / name).is_file():
            assert (roots[layout] / name).read_text().startswith((tmp_path / name).read_text())


def test_styles_layout_shows_each_scene_in_every_style(roots):
    root = roots["styles"]
    truth = read_json(root / "scenes.json")
    assert len(truth) == -(-34 // len(STYLES)) and len(STYLES) >= 12
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == sorted(STYLES)
    for style in STYLES:
        assert sorted(path.name for path in (root / style).glob("*_img.png")) == [
            f"{scene['name']}_img.png" for scene in truth
        ]
        for kind, expected in hash_text(f"{style.replace('_', ' ')} style").items():
            loaded = torch.load(root / style / f"{truth[0]['name']}_{kind}.pt", weights_only=True)
            assert torch.equal(loaded, expected)


def test_captions_layout(roots):
    root = roots["captions"]
    english, chinese, truth = (read_json(root / name) for name in ("data.json", "captions_zh.json", "scenes.json"))
    assert len({row["caption"] for row in english}) == len({row["caption"] for row in chinese}) == 34
    for index, (row, row_chinese, scene) in enumerate(zip(english, chinese, truth)):
        assert row["image_path"] == row_chinese["image_path"] == scene["name"] and (root / row["image_path"]).is_file()
        assert (root / "captions" / f"{Path(row['image_path']).stem}.txt").read_text() == row["caption"] + "\n"
        assert row["caption"].startswith(scene["caption"])
        assert (f"in {scene['style'].replace('_', ' ')} style" in row["caption"]) == bool(index % 2)
        assert (CHINESE_STYLES[scene["style"]] in row_chinese["caption"]) == bool(index % 2)
    assert sorted(scene["style"] for scene in truth[: len(STYLES)]) == sorted(STYLES)


def test_persona_layout(roots):
    root = roots["persona"]
    rows = read_lines(root / "metadata.jsonl")
    assert len({row["character"] for row in rows}) == len(rows) == 34
    for row in rows:
        assert set(row) == {"file_name", "title", "character", "appearance", "personality", "url"} and all(row.values())
        assert (root / row["file_name"]).is_file() and row["appearance"].startswith(row["character"])
    portrait = random_portrait(np.random.default_rng(0), "Mira Vale")
    words = (portrait.hair, portrait.length, portrait.eyes, portrait.outfit, portrait.accessory)
    assert all(word in portrait.appearance for word in words)
    colours = {part.colour for part in portrait.parts()}
    assert {HAIR[portrait.hair], EYES[portrait.eyes], COLOURS[portrait.outfit]} <= colours
    assert set(PORTRAIT_STYLES) <= set(STYLES)


def test_vqa_answers_are_true(roots):
    root = roots["vqa"]
    truth = {scene["name"]: scene for scene in read_json(root / "scenes.json")}
    images: dict[str, set] = {}
    for name in ("train", "val", "test"):
        with (root / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        images[name] = {row["image"] for row in rows}
        for row in rows:
            assert set(row) == {"image", "question", "answer", "style"} and (root / row["image"]).is_file()
            check_answer(row["question"], row["answer"], truth[row["image"]])
            assert row["style"] == truth[row["image"]]["style"]
    assert images["val"] and images["test"] and set().union(*images.values()) == set(truth)
    assert sum(map(len, images.values())) == len(truth), "an image is in two splits"


def check_answer(question: str, answer: str, scene: dict) -> None:
    """Answer again from the boxes and names alone."""
    words = question.rstrip("?").split()
    named = [thing for thing in scene["objects"] if any(is_named(thing["kind"], word) for word in words)]
    if "style" in words or "technique" in words:
        assert answer == scene["style"].replace("_", " ")
    elif words[0] == "Which":
        assert set(answer.split(" and ")) == {thing["kind"] for thing in scene["objects"]}
    elif words[:2] == ["How", "many"]:
        assert int(answer) == len(named)
    elif words[:2] == ["What", "colour"]:
        assert {answer} == {thing["colour"] for thing in named}
    elif words[0] == "Where":
        (x0, y0, x1, y1), place = named[0]["box"], {"left": 0, "top": 0, "centre": 0.5, "right": 1, "bottom": 1}[answer]
        middle = (y0 + y1) / 2 if answer in ("top", "bottom") else (x0 + x1) / 2
        assert abs(middle - place) < (0.05 if answer == "centre" else 0.32)
    else:
        relation = next(relation for relation in RELATIONS if f" {relation} the " in question)
        first = answer if words[0] == "What" else next(k for w in words for k in KINDS if is_named(k, w))
        here = [thing["box"] for thing in scene["objects"] if thing["kind"] == first]
        there = [thing["box"] for thing in scene["objects"] if thing["kind"] != first]
        assert holds(relation, here, there) == (answer != "no")


def is_named(kind: str, word: str) -> bool:
    return word in (kind, kind + "s", kind[:-1] + "ies")


def holds(relation: str, here: list, there: list) -> bool:
    axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[relation]
    if sign < 0:
        here, there = there, here
    return max(box[axis + 2] for box in here) <= min(box[axis] for box in there) + 1e-6


def test_conversations_layout(roots):
    root = roots["conversations"]
    rows, meta = read_lines(root / "conversations.jsonl"), read_json(root / "meta.json")["sample"]
    assert set(meta) == {"root", "annotation", "data_augment", "repeat_time", "length", "max_dynamic_patch"}
    assert meta["length"] == len(rows) == 34 and (root / meta["annotation"]).is_file()
    truth = read_json(root / "scenes.json")
    for row, scene in zip(rows, truth):
        with Image.open(root / meta["root"] / row["image"]) as image:
            assert image.size == (row["width"], row["height"]) and image.mode == "RGB"
        turns = row["conversations"]
        assert len(turns) >= 4 and [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert turns[0]["value"].startswith("<image>\n") and sum("<image>" in turn["value"] for turn in turns) == 1
        assert (
            turns[1]["value"].rstrip(".").lower() == scene["caption"] or turns[1]["value"] == scene["caption_chinese"]
        )
    assert 0 < sum(any("一" <= letter <= "鿿" for letter in str(row)) for row in rows) < len(rows) / 2


def test_retrieval_layout(roots):
    root = roots["retrieval"]
    assert sorted(path.name for path in (root / "gallery").iterdir()) == sorted(KINDS)
    for path in root.rglob("*.png"):
        assert path.parent.name in KINDS
    assert {path.parent.name for path in (root / "query").rglob("*.png")} == set(KINDS)
    styles = {scene["style"] for scene in read_json(root / "scenes.json")}
    assert len(styles) > len(STYLES) // 2


def test_captions_say_what_is_there(scenes):
    for scene in scenes:
        assert 1 <= len(scene.objects) <= 4
        assert BACKGROUNDS[scene.background][0] in scene.caption
        for group, members in enumerate(scene.groups):
            first, kind = scene.first(group), KINDS[scene.first(group).kind]
            things = {(scene.objects[i].kind, scene.objects[i].colour, scene.objects[i].size) for i in members}
            assert things == {(first.kind, first.colour, first.size)}
            assert f"{NUMBERS[len(members)][0]} {first.size}" in scene.caption
            assert f"{first.colour} {scene.noun(group)}" in scene.caption
            assert f"{NUMBERS[len(members)][1]}{kind.measure}" in scene.caption_chinese
            assert CHINESE[first.colour] in scene.caption_chinese and kind.chinese in scene.caption_chinese
        truth = {"style": "", "objects": [vars(thing) for thing in scene.objects]}
        for question, answer in questions(scene, np.random.default_rng(0)):
            check_answer(question, answer, truth)
    assert {thing.kind for scene in scenes for thing in scene.objects} == set(KINDS) and len(KINDS) >= 10


def test_boxes_are_inside_apart_and_ordered_by_size(scenes):
    for scene in scenes:
        boxes = np.array([thing.box for thing in scene.objects])
        assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[:, 2:] > boxes[:, :2]).all()
        for index, one in enumerate(boxes):
            for other in boxes[index + 1 :]:
                assert (one[2:] <= other[:2] + 1e-4).any() or (other[2:] <= one[:2] + 1e-4).any(), "objects overlap"
    longest = {size: [] for size in ("small", "medium", "large")}
    for thing in (thing for scene in scenes for thing in scene.objects):
        longest[thing.size].append(max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]))
    assert max(longest["small"]) < min(longest["medium"]) and max(longest["medium"]) < min(longest["large"])


def test_other_peoples_files_stay(tmp_path):
    (tmp_path / "README.md").write_text("of the repository")
    create_sample_dataset(tmp_path, 12, layout="captions", size=SIZE)
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    create_sample_dataset(tmp_path, 5, seed=1, layout="captions", size=SIZE)
    assert (tmp_path / "images" / "mine.png").read_bytes() == b"mine"
    assert len(list((tmp_path / "images").glob("scene_*.png"))) == 5, "pictures of the first call are left"

    other = tmp_path / "other"
    other.mkdir()
    (other / "data.json").write_text("[]")
    with pytest.raises(FileExistsError, match="other: is not empty"):
        create_sample_dataset(other, 2, layout="captions", size=SIZE)
    assert [path.name for path in other.iterdir()] == ["data.json"]


def test_samples_are_offered_to_an_empty_folder_only_and_always_named(tmp_path, capsys, monkeypatch):
    user = tmp_path / "user" / "watercolour"
    user.mkdir(parents=True)
    offer_samples(user.parent, 2, "captions")
    assert not list(user.iterdir()) and capsys.readouterr().err == ""
    empty = tmp_path / "empty"
    with monkeypatch.context() as patch:
        patch.setattr(SampleFolder, "write_manifest", lambda *settings: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            offer_samples(empty, 2, "captions")
    assert not is_drawn(empty) and is_vacant(empty)  # what an interrupted drawing left is drawn again, as a whole
    (empty / "images" / "scene_00000.png").write_bytes(b"half a fi")
    capsys.readouterr()
    offer_samples(empty, 3, "captions")
    assert is_drawn(empty) and f"{empty}: NO DATA HERE, DRAWING 3 SAMPLE" in capsys.readouterr().err
    before = digests(empty)
    offer_samples(empty, 9, "captions")
    assert digests(empty) == before and f"{empty}: DRAWN SAMPLE DATA" in capsys.readouterr().err


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="'style' is unknown; choose one of styles, captions"):
        create_sample_dataset(tmp_path / "x", layout="style")
    with pytest.raises(ValueError, match="num_samples is 0"):
        create_sample_dataset(tmp_path / "x", num_samples=0)
    with pytest.raises(ValueError, match="size is 4"):
        create_sample_dataset(tmp_path / "x", size=4)
    assert not (tmp_path / "x").exists()
