"""Tables to batches, feature cache, checkpoints, evaluation and inference."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny.blip2 import batch_of, build, run

from blip2_gated import compare, evaluate, inference, train
from blip2_gated.backbone import read_blip2
from blip2_gated.checkpoint import load_gated
from blip2_gated.dataset import DATASETS, Columns, VqaDataset, VqaSample, read_samples
from blip2_gated.feature_cache import FeatureCache, cache_features
from blip2_gated.losses import answer_rows, main_loss
from blip2_gated.prompts import IGNORED, PromptEncoder
from blip2_gated.warm_start import pretrain_language, pretrain_vision
from common.images.cache import ImageCache

COLUMNS = Columns()


def write_table(path, rows, names=("image", "question", "answer", "style")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(random.integers(0, 255, (50, 40, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return write_table(
        tmp_path / "train.csv",
        [
            ("a.png", "In which style is this drawn?", "Noto", "noto"),
            ("b.png", "How many?", "two", "black_cats"),
            ("c.png", "How many?", "one", "noto"),
            ("a.png", "", "one", "noto"),
            ("b.png", "Black cats?", "Black cats", "black_cats"),
        ],
    )


def test_rows_become_samples_and_bad_ones_are_named(table, tmp_path):
    samples, skipped = read_samples(table, tmp_path, "csv", COLUMNS)
    assert [(one.number, one.type) for one in samples] == [(0, "style"), (1, "other"), (4, "style")]
    assert list(skipped) == [f"{table}:4", f"{table}:5"]
    assert "c.png: no such file" in skipped[f"{table}:4"] and "empty" in skipped[f"{table}:5"]


def test_artquest_takes_the_school_for_the_style(tmp_path, table):
    names = ("image", "question", "answer", "question_type")
    path = write_table(
        tmp_path / "art.csv",
        [
            ("a.png", "Who painted this?", "Jan Steen", "artist"),
            ("a.png", "Of which school?", "Dutch", "school"),
            ("b.png", "What is its title?", "A Cat", "title"),
        ],
        names,
    )
    columns = Columns(style="", type="question_type")
    samples, _ = read_samples(path, tmp_path, "artquest", columns)
    assert [(one.style, one.type) for one in samples] == [("dutch", "artist"), ("dutch", "school"), ("", "title")]
    with pytest.raises(ValueError, match="unknown --data.style_type 'scool'; did you mean school"):
        read_samples(path, tmp_path, "artquest", Columns(style="", type="question_type", style_type="scool"))


def test_another_data_set_is_a_function(table, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", lambda rows, columns: [VqaSample(0, "a.png", "q", "a", "", "mine")])
    assert read_samples(table, tmp_path, "mine", COLUMNS)[0][0].type == "mine"


def test_pieces_are_what_the_tokenizer_makes_of_the_whole():
    model, _ = build("film")
    prompts, tokenizer = model.prompts, model.prompts.tokenizer
    encoded = prompts.encode("How many black cats?", "two black cats")
    image = [model.blip2.config.image_token_index] * 5
    whole = tokenizer("Question: How many black cats? Answer: two black cats\n").input_ids
    assert encoded.prompt + encoded.answer == image + whole and encoded.answer[-1] == prompts.newline
    assert encoded.question == tokenizer(" How many black cats?", add_special_tokens=False).input_ids
    assert prompts.encode("").prompt == [*image, tokenizer.bos_token_id]
    short = PromptEncoder(tokenizer, image[0], 5, max_tokens=3)
    assert len(short.encode("How?", "two black cats and two black cats").answer) == 4  # and the newline
    long = short.encode("How many black cats?", "two")
    assert long.truncated and len(long.question) == 3 and long.answer[-1] == prompts.newline
    assert long.prompt[-len(prompts.tail) :] == prompts.tail


def test_labels_are_the_answer_and_its_newline():
    model, _ = build("film")
    batch = batch_of(model)
    for row, answer in zip(range(2), (" Noto", " two black cats")):
        learnt = batch["labels"][row][batch["labels"][row] != IGNORED]
        assert model.prompts.tokenizer.decode(learnt) == f"{answer}\n"
        places = batch["labels"][row] != IGNORED
        assert torch.equal(batch["input_ids"][row][places], learnt) and bool(batch["attention_mask"][row][places].all())
    left = model.prompts.collate([model.prompts.encode("How many?"), model.prompts.encode("Why?")], side="left")
    assert left["attention_mask"][:, -1].tolist() == [1, 1] and (left["labels"] == IGNORED).all()


def test_what_is_ignored_does_not_reach_the_loss():
    """The rows of padding and of the prompt may hold anything."""
    model, _ = build("film")
    batch = batch_of(model)
    logits = run(model, batch).logits
    other = logits.clone()
    shifted = torch.cat([batch["labels"][:, 1:], torch.full((2, 1), IGNORED)], 1)
    other[shifted == IGNORED] = 7.0
    one, two = (main_loss(*answer_rows(each, batch["labels"])[:2])[0] for each in (logits, other))
    assert torch.equal(one, two)


def test_style_losses_apply_where_the_answer_names_a_style(table, tmp_path):
    model, _ = build("film")
    samples, _ = read_samples(table, tmp_path, "csv", COLUMNS)
    store = ImageCache(48)
    dataset = VqaDataset(samples, store, 32, model.prompts, model.styles)

    def values(name, samples=samples, where="answers"):
        return [int(item[name]) for item in VqaDataset(samples, store, 32, model.prompts, model.styles, where)]

    assert values("applies") == [True, False, True] and values("style_ids") == [1, 0, 0]
    assert values("applies", where="all") == [True, True, True]
    unseen = [replace(samples[0], style="cubism"), replace(samples[0], style="")]
    assert values("style_ids", unseen) == [-1, -1]
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch["image"].shape == (2, 3, 32, 32) and batch["image"].dtype == torch.uint8
    assert not torch.equal(batch["image"][0], batch["image"][1])


def test_warm_start_trains_vision_then_language(table, tmp_path):
    """Each step teaches its own part, leaves the other bit-equal, and is the same for the same seed."""
    samples, _ = read_samples(table, tmp_path, "csv", COLUMNS)
    store = ImageCache(48)
    ends = []
    for _ in range(2):
        model, plain = build("film", trained="all")
        dataset = VqaDataset(samples, store, 32, model.prompts, model.styles)
        before, states = plain.state_dict(), []
        for learn in (pretrain_vision, pretrain_language):
            first, last = learn(model, dataset, steps=30, batch_size=4, seed=0)
            assert last < 0.7 * first
            states.append({name: value.clone() for name, value in model.blip2.state_dict().items() if name in before})
        seen, read = states
        for one, other, reads in ((before, seen, False), (seen, read, True)):
            changed = {name for name in seen if not torch.equal(one[name], other[name])}
            assert changed and all(name.startswith("language_model.") == reads for name in changed)
        ends.append(read)
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_cached_features_equal_the_towers_and_are_invalidated(tmp_path, table):
    model, _ = build("film")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    store = ImageCache(48)
    cache = cache_features(model, store, paths, tmp_path / "kept", torch.device("cpu"), quiet=True)
    assert isinstance(cache, FeatureCache) and len(cache.rows) == 2
    images = torch.stack([model.prepare([tmp_path / "b.png"])[0]])
    features = model.features(images)
    for name, now in features._asdict().items():
        kept = cache[paths[1]][name]
        assert kept.dtype == torch.float16
        torch.testing.assert_close(kept.float(), now[0], rtol=2e-3, atol=2e-3)
    files = sorted((tmp_path / "kept").iterdir())
    cache_features(model, store, paths, tmp_path / "kept", torch.device("cpu"), quiet=True)
    assert sorted((tmp_path / "kept").iterdir()) == files  # found, not made again
    with torch.no_grad():
        model.efficientnet.backbone.conv_stem.weight[0] += 1e-6
    cache_features(model, store, paths, tmp_path / "kept", torch.device("cpu"), quiet=True)
    assert len(list((tmp_path / "kept").iterdir())) == 2 * len(files)
    Image.new("RGB", (50, 40)).save(tmp_path / "b.png")
    cache_features(model, store, paths, tmp_path / "kept", torch.device("cpu"), quiet=True)
    assert len(list((tmp_path / "kept").iterdir())) == 3 * len(files)


def test_the_efficientnet_sees_imagenet_statistics_at_its_own_size():
    model, _ = build("film")
    adapter = model.efficientnet
    image = torch.rand(2, 3, adapter.image_size, adapter.image_size)
    expected = (image - torch.tensor(adapter.preprocessing["mean"]).view(1, 3, 1, 1)) / torch.tensor(
        adapter.preprocessing["std"]
    ).view(1, 3, 1, 1)
    torch.testing.assert_close(adapter.renormalise(model.normalise(image)), expected, rtol=1e-4, atol=1e-5)
    assert adapter.renormalise(torch.zeros(1, 3, 32, 32)).shape[-1] == adapter.image_size


def test_evaluation_inference_and_export_of_a_trained_model(blip2_arguments, tmp_path, vqa_data, capsys):
    train.main([*blip2_arguments, "--model.lora.enabled", "--training.eval_samples", "0"])
    best = tmp_path / "checkpoints" / "best.pt"
    report = evaluate.main(
        [
            "--checkpoint",
            str(best),
            "--split",
            "test",
            "--device",
            "cpu",
            "--output_dir",
            str(tmp_path / "out"),
            "--num_beams",
            "2",
        ]
    )
    shown = capsys.readouterr().out
    rows = list(csv.DictReader((vqa_data / "test.csv").open()))
    assert report["all"]["questions"] == len(rows) and "style" in report["by_type"] and "names a style" in shown
    assert {"main", "style_hit", "consistency", "style_head", "loss"} == set(report["losses"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    official = json.loads((tmp_path / "out" / "vqa_results.json").read_text())
    assert [line["answer"] for line in lines] == [row["answer"] for row in rows]
    assert [one["answer"] for one in official] == [line["prediction"] for line in lines]
    assert [one["question_id"] for one in official] == list(range(len(rows)))
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["all"] == report["all"]
    compare.main([f"gated={tmp_path / 'out'}", "--show", "1"])
    assert f"{rows[0]['image']}   {rows[0]['question']}   {rows[0]['answer']}" in capsys.readouterr().out

    picture, question = str(vqa_data / rows[0]["image"]), rows[0]["question"]
    asked = [picture, question, "How many?", "--checkpoint", str(best), "--device", "cpu", "--json"]
    said = inference.main(asked)
    assert list(said["answers"]) == [question, "How many?"] and sum(said["styles"].values()) == pytest.approx(1)
    whole = tmp_path / "whole.pt"
    inference.main(["--checkpoint", str(best), "--export", str(whole), "--device", "cpu"])
    (tmp_path / "checkpoints").rename(tmp_path / "gone")
    one, _ = load_gated(tmp_path / "gone" / "best.pt")
    other, content = load_gated(whole)
    batch = batch_of(one)
    assert torch.equal(run(one, batch).logits, run(other, batch).logits) and content["epoch"] in (1, 2)
    assert whole.stat().st_size > 1.5 * (tmp_path / "gone" / "best.pt").stat().st_size


def test_weights_for_another_blip2_are_refused(blip2_arguments, tmp_path, tiny_blip2):
    train.main([*blip2_arguments, "--training.epochs", "1", "--training.eval_samples", "0"])
    other, tokenizer = read_blip2(str(tiny_blip2))
    with torch.no_grad():
        other.language_model.get_input_embeddings().weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="best.pt: .*--blip2 and --efficientnet"):
        load_gated(tmp_path / "checkpoints" / "best.pt", blip2=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="expected a picture and at least one question"):
        inference.main(["--checkpoint", "best.pt"])
    with pytest.raises(ValueError, match="--limit"):
        evaluate.main(["--checkpoint", "best.pt", "--limit", "-1"])
