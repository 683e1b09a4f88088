"""Commands, settings and files of BLIP2-gated as its guide types them."""

import csv
import json
import shutil

import pytest
from torch.utils.data import Dataset

from blip2_gated import config, dataset, evaluate, train
from blip2_gated.dataset import DATASETS, Columns, VqaSample, read_samples, read_splits
from blip2_gated.model import Blip2OPTGated
from common.cli import paths
from common.cli.settings import read_settings

GUIDE = """
data:
  dataset_name: artquest
  root: /data/artquest
  image_root: /data/SemArt/Images
  train_csv: artquest_train.csv
  style_column: style
model:
  efficientnet_output_dim: 768
  gating: {type: gate, per_head: true, init_scale: 0.5}
  prompt_mapper: {num_tokens: 4, hidden: 256, dropout: 0.2}
  lora: {enabled: true, rank: 4, alpha: 8.0}
training: {num_epochs: 3, lr: 2e-4, gradient_accumulation_steps: 4, warmup_steps: 5}
loss: {main_weight: 2.0, style_hit_weight: 0.3, consistency_weight: 0.2}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder in place of the repository's root, and where scripts are started."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def artquest(root, vqa_data):
    """ArtQuest's tables, about drawn pictures, as its README lays them out."""
    shutil.copytree(vqa_data / "images", root / "data" / "SemArt" / "Images")
    (root / "data" / "artquest").mkdir()
    for split in ("train", "val", "test"):
        with (vqa_data / f"{split}.csv").open() as file:
            styles = {row["image"].split("/")[1]: row["style"] for row in csv.DictReader(file)}
        with (root / "data" / "artquest" / f"artquest_{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("image", "question", "answer", "question_type", "question_id"))
            for number, (image, style) in enumerate(styles.items()):
                table.writerow((image, "Of which school is it?", style.replace("_", " "), "school", 7000 + number))
                table.writerow((image, "What is the title?", "A Cat", "title", 8000 + number))
    return root


@pytest.fixture
def length(blip2_arguments):
    """The flags of a run of a second, but for its data."""
    return [*blip2_arguments[2:], "--training.epochs", "1", "--training.eval_samples", "0"]


def test_settings_of_the_guide(tmp_path):
    (tmp_path / "mine.yaml").write_text(GUIDE)
    settings = vars(read_settings(config, ["--config", str(tmp_path / "mine.yaml")]))
    expected = {
        "data_dataset_name": "artquest",
        "data_image_root": "/data/SemArt/Images",
        "model_efficientnet_output_dim": 768,
        "model_gating_type": "gate",
        "model_gating_per_head": True,
        "model_prompt_mapper_num_tokens": 4,
        "model_lora_enabled": True,
        "model_lora_rank": 4,
        "training_epochs": 3,
        "training_learning_rate": 2e-4,
        "training_accumulation": 4,
        "loss_main": 2.0,
        "loss_style_hit": 0.3,
        "loss_consistency": 0.2,
    }
    assert {name: settings[name] for name in expected} == expected


def test_flags_of_the_guide():
    lora = ["--model.lora.enabled", "--model.lora.rank", "16", "--model.lora.alpha", "32"]
    typed = [
        *lora,
        "--model.gating.type",
        "kv",
        "--model.gating.per_head",
        "--model.efficientnet.weights",
        "wikiart.pth",
    ]
    settings = read_settings(config, [*typed, "--amp", "--lr", "3e-4", "--training.save_last"])
    assert (settings.model_lora_enabled, settings.model_lora_rank, settings.model_lora_alpha) == (True, 16, 32)
    assert (settings.model_gating_type, settings.model_gating_per_head) == ("kv", True)
    assert settings.model_efficientnet_weights == "wikiart.pth" and settings.training_precision == "auto"
    assert settings.training_learning_rate == 3e-4 and settings.training_save_last
    with pytest.raises(ValueError, match="--checkpoint_path': the best checkpoint is written into checkpoint_dir"):
        read_settings(config, ["--checkpoint_path", "best.pt"])


@pytest.mark.parametrize(
    "line, words",
    [
        ("model: {visual_encoder: eva_clip_g}", "model.visual_encoder': model.blip2 names both parts, for inst"),
        ("model: {opt_model: facebook/opt-2.7b}", "model.opt_model': model.blip2 names both parts, for inst"),
        ("checkpoint_path: models/Gated/checkpoints/best.pt", "checkpoint_path': the best checkpoint is written into"),
        ("training: {checkpoint_path: best.pt}", "training.checkpoint_path': the best checkpoint is written into che"),
        ("training: {amp: true}", "training.amp': mixed precision is set by precision: auto, bf16, fp16 or fp32"),
        ("training: {scheduler: cosine}", "training.scheduler': the schedule is always a linear warmup and a cosine"),
        ("data: {train_split: a.csv}", "data.train_split'; did you mean data.train_csv?"),
    ],
)
def test_settings_of_another_name_are_told_the_one_here(tmp_path, line, words):
    (tmp_path / "mine.yaml").write_text(line)
    with pytest.raises(ValueError, match=words):
        read_settings(config, ["--config", str(tmp_path / "mine.yaml")])


def test_training_without_data_says_what_it_looked_for(root):
    with pytest.raises(FileNotFoundError) as error:
        train.main([])
    for words in ("./data/vqa/train.csv", "./data/artquest/artquest_train.csv", "--data.root", "--demo"):
        assert words in str(error.value)
    with pytest.raises(FileNotFoundError, match="data/artquest: no such folder, with artquest_train.csv in it"):
        train.main(["--config", "artquest"])
    (root / "data" / "artquest").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="data/SemArt/Images: no such folder of images"):
        train.main(["--config", "artquest"])
    with pytest.raises(FileNotFoundError, match="best.pt: no such file .train.py writes checkpoints/blip2_gated/"):
        evaluate.main(["--config", "artquest", "--checkpoint", "models/Gated/checkpoints/best.pt"])
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == ["data", "data/artquest"]


def test_the_demo_draws_into_an_empty_folder_only(root, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "DEMO_IMAGES", 16)
    mine = root / "data" / "sample_vqa"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    settings = read_settings(config, ["--demo"])
    with pytest.raises(FileNotFoundError, match=r"sample_vqa/train.csv: no such file"):
        read_splits(settings, ["train"])
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    (mine / "notes.txt").unlink()
    splits, _ = read_splits(settings, ["train", "val"])
    assert "drawing 16 sample pictures" in capsys.readouterr().out and len(splits["train"]) > 20


def test_training_reads_artquest_by_default(artquest, length, monkeypatch, capsys):
    """Also from a folder of the repository; then `eval --config artquest --checkpoint best.pt` with its files."""
    (artquest / "blip2_gated").mkdir()
    monkeypatch.chdir(artquest / "blip2_gated")
    results = train.main(length)
    assert results["epochs"] == 1 and "from ./data/artquest" in capsys.readouterr().out
    best = artquest / "checkpoints" / "best.pt"
    command = ["--config", "artquest", "--checkpoint", str(best), "--output_dir", "out", "--device", "cpu"]
    report = evaluate.main([*command, "--num_beams", "1"])
    assert set(report["by_type"]) == {"school", "title"}
    assert {"main", "style_hit", "consistency"} < set(report["losses"])
    official = json.loads((artquest / "blip2_gated" / "out" / "vqa_results.json").read_text())
    with (artquest / "data" / "artquest" / "artquest_val.csv").open() as file:
        ids = [int(row["question_id"]) for row in csv.DictReader(file)]
    assert [result["question_id"] for result in official] == ids and len(ids) > 1
    (artquest / "data" / "vqa").mkdir()
    (artquest / "data" / "vqa" / "train.csv").write_text("image,question,answer,style\n")
    with pytest.raises(ValueError, match="data/vqa/train.csv: no usable sample"):  # tables of one's own come first
        train.main(length)


def test_a_test_split_without_answers_gets_predictions(blip2_arguments, tmp_path, vqa_data, capsys):
    """For VQAv2's test-dev and the like, whose answers only the evaluation server has."""
    train.main([*blip2_arguments, "--training.epochs", "1", "--training.eval_samples", "0"])
    with (vqa_data / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    (tmp_path / "test.csv").write_text("\n".join(["image,question", *(f"{r['image']},{r['question']}" for r in rows)]))
    data = ["--data.root", str(tmp_path), "--data.image_root", str(vqa_data), "--split", "test"]
    none = ["--data.answer_column=", "--data.style_column=", "--device", "cpu", "--num_beams", "1"]
    best, out = tmp_path / "checkpoints" / "best.pt", tmp_path / "out"
    report = evaluate.main(["--checkpoint", str(best), "--output_dir", str(out), *data, *none])
    official = json.loads((out / "vqa_results.json").read_text())
    assert [result["question_id"] for result in official] == list(range(len(rows))) and "losses" not in report
    assert all(result["answer"] for result in official) and f"predictions: {out}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--data.answer_column: none, but training needs answers"):
        train.main([*blip2_arguments, "--data.answer_column="])


def test_questions_are_generated_where_the_columns_change_places(blip2_arguments, tmp_path):
    """Visual question generation: from the picture and the answer; BLEU and ROUGE compare the questions."""
    swapped = ["--data.question_column", "answer", "--data.answer_column", "question"]
    prompt = ["--data.prompt", "Answer: {} Question:", "--training.epochs", "1", "--training.eval_samples", "0"]
    train.main([*blip2_arguments, *swapped, *prompt])
    best = tmp_path / "checkpoints" / "best.pt"
    options = ["--limit", "4", "--num_beams", "1", "--max_new_tokens", "12", "--device", "cpu"]
    report = evaluate.main(["--checkpoint", str(best), "--output_dir", str(tmp_path / "out"), *options])
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == [0, 2, 4, 6]  # evenly spread over the eight of the split
    assert all(row["answer"].endswith("?") for row in rows)
    assert {"bleu", "rougeL"} <= set(report["all"]) and all(row["prediction"] for row in rows)


class Paintings(Dataset):
    """A data set of one's own: rows of another table, as dictionaries."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        question = f"{row[self.columns.question]}?"
        return {"image": row["file"], "question": question, "answer": row["a"], "style": row["movement"]}


def test_a_dataset_of_ones_own_is_registered(vqa_data, tmp_path, monkeypatch):
    images = sorted(path.name for path in (vqa_data / "images").glob("*.png"))[:3]
    for split in ("train", "val"):
        lines = [f"{name},What is it,a cat,cubism" for name in images]
        (tmp_path / f"{split}.csv").write_text("\n".join(["file,q,a,movement", *lines]))
    columns = {"image": "file", "question": "q", "answer": "a", "style": "movement"}
    flags = [word for name, column in columns.items() for word in (f"--data.{name}_column", column)]
    folders = ["--data.root", str(tmp_path), "--data.image_root", str(vqa_data / "images")]
    settings = read_settings(config, [*folders, *flags, "--data.dataset_name", "paintings"])
    with pytest.raises(ValueError, match=r"dataset_name 'paintings'.*\(known: csv, artquest; .*DATASETS"):
        read_splits(settings, ["train"])
    monkeypatch.setitem(DATASETS, "paintings", Paintings)
    splits, skipped = read_splits(settings, ["train", "val"])
    expected = [
        VqaSample(number, name, "What is it?", "a cat", "cubism", path=vqa_data / "images" / name)
        for number, name in enumerate(images)
    ]
    assert splits == {"train": expected, "val": expected} and skipped == {}


def test_question_ids_of_a_table_are_kept(vqa_data, tmp_path):
    """The VQA evaluation refuses results whose ids are not its own."""
    image = next((vqa_data / "images").glob("*.png"))
    rows = [f"{image.name},Why?,so,{question_id}" for question_id in ("262148000", "a7", "")]
    (tmp_path / "a.csv").write_text("\n".join(["image,question,answer,question_id", *rows]))
    samples, _ = read_samples(tmp_path / "a.csv", image.parent, "csv", Columns(style=""))
    assert [sample.question_id for sample in samples] == [262148000, "a7", None]


def test_the_class_has_its_name():
    assert {"predict_answers", "generate", "forward"} <= set(dir(Blip2OPTGated))
