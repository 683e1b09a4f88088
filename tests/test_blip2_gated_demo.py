"""BLIP2-gated's demo: test pictures that no part has seen, models compared on the same questions."""

import json
from hashlib import sha256

import pytest

from blip2_gated import compare
from blip2_gated.dataset import DEMO_SEED
from common.samples.layouts import create_sample_dataset


def write_evaluation(folder, answers, weights=False, question="How many?"):
    """Evaluation of one style question, whose answer is flat, and one other, whose answer is 2."""
    folder.mkdir()
    truths = {"In which style?": "flat", question: "2"}
    rows = [
        {"image": "a.png", "question": asked, "answer": true, "prediction": answer, "correct": answer == true}
        for (asked, true), answer in zip(truths.items(), answers)
    ]
    scores = [{"questions": 1, "question_only": 0.0, "vqa_accuracy": 100.0 * row["correct"]} for row in rows]
    both = {"questions": 2, "question_only": 0.0, "vqa_accuracy": 50.0 * sum(row["correct"] for row in rows)}
    settings = {"model_efficientnet_weights": weights, "training_seed": 0, "training_checkpoint_dir": str(folder)}
    report = {"settings": settings, "all": both, "by_type": dict(zip(("style", "other"), scores))}
    (folder / "evaluation.json").write_text(json.dumps(report))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"{folder.name}={folder}"


def test_two_models_side_by_side(tmp_path, capsys):
    words = [
        write_evaluation(tmp_path / "random", ["neon", "2"]),
        write_evaluation(tmp_path / "expert", ["flat", "3"], weights="best.pth"),
    ]
    compare.main([*words, "--show", "8"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["random", "0.0", "100.0", "50.0"] in lines and ["expert", "100.0", "0.0", "50.0"] in lines
    assert ["question", "only", "0.0", "0.0", "0.0"] in lines
    assert ["model_efficientnet_weights", "False", "best.pth"] in lines
    assert not [line for line in lines if "training_seed" in line or "training_checkpoint_dir" in line]
    assert ["a.png", "In", "which", "style?", "flat", "neon", "(wrong)", "flat"] in lines
    assert ["a.png", "How", "many?", "2", "2", "3", "(wrong)"] in lines


def test_other_questions_are_not_compared(tmp_path):
    words = [
        write_evaluation(tmp_path / "one", ["flat", "2"]),
        write_evaluation(tmp_path / "two", ["flat", "2"], question="How many birds?"),
    ]
    with pytest.raises(ValueError, match="different questions"):
        compare.main(words)


@pytest.mark.parametrize("seed, shared", [(0, True), (DEMO_SEED, False)])
def test_the_style_encoder_has_not_seen_the_pictures_of_the_questions(tmp_path, seed, shared):
    def pictures(name, **options):
        create_sample_dataset(tmp_path / name, 30, size=16, **options)
        return {sha256(path.read_bytes()).digest() for path in (tmp_path / name).rglob("*.png")}

    assert bool(pictures("styles", layout="styles") & pictures("vqa", layout="vqa", seed=seed)) == shared
