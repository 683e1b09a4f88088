"""Losses against slow loops written from their formulas; style vocabulary; metrics."""

import math

import pytest
import torch
from tiny.blip2 import batch_of, build

from blip2_gated.backbone import make_tokenizer
from blip2_gated.dataset import VqaSample
from blip2_gated.losses import answer_rows, consistency_loss, main_loss, style_head_loss, style_hit_loss, style_masses
from blip2_gated.metrics import Prediction, QuestionOnlyBaseline, measure_answers, normalise_answer, vqa_accuracy
from blip2_gated.style_vocabulary import StyleVocabulary
from blip2_gated.training_model import GatedTrainingModel, measure_loss
from common.training.distributed import global_mean

TEXTS = [f" {word}" for word in ("Fluent flat", "Fluent 3D", "Noto", "Cubism", "Realism", "study of hands", "flatly")]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(TEXTS * 20, 500)


@pytest.fixture(scope="module")
def styles(tokenizer):
    return StyleVocabulary(
        tokenizer, ["fluent_flat", "fluent_3d", "noto"], ["Fluent flat", "Fluent 3D", "Noto", "a cat"]
    )


def test_shared_and_short_pieces_name_no_style(tokenizer, styles):
    words = [tokenizer.decode([token]) for token in styles.token_ids]
    assert styles.labels == ["fluent_3d", "fluent_flat", "noto"] and not styles.labels_without_tokens
    assert all(word.startswith(" ") for word in words)  # pieces inside words, as 'ism', are none
    assert {word.strip().lower() for word in words} >= {"flat", "noto"}
    assert not any("fluent" in word.lower() for word in words)
    assert {styles.labels[number] for number in styles.token_classes} == set(styles.labels)
    of = StyleVocabulary(tokenizer, ["study_of_hands", "study_of_realism"])
    words = {tokenizer.decode([token]).strip() for token in of.token_ids}
    assert words and {"study", "of"}.isdisjoint(words)
    assert StyleVocabulary(tokenizer, ["noto", "noto_of"]).labels_without_tokens == ["noto", "noto_of"]


def test_styles_are_found_as_whole_words(styles):
    assert styles.named_in("It is Fluent Flat.") == ["fluent_flat"] and styles.named_in("flatly notorious") == []
    assert styles.named_in("Noto or fluent 3D") == ["noto", "fluent_3d"]
    for shorter in ("flat", "fluent"):
        longer = StyleVocabulary(make_tokenizer(["a"], 300), [shorter, "fluent_flat"])
        assert longer.named_in("fluent flat") == ["fluent_flat"]
    assert StyleVocabulary(make_tokenizer(["a"], 300), []).named_in("noto") == []


def test_main_loss_is_the_librarys():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    labels[:, :4] = -100
    labels[1] = -100
    log_probs, targets, samples = answer_rows(logits, labels)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1))
    torch.testing.assert_close(global_mean(*main_loss(log_probs, targets)), expected)
    assert samples.tolist() == [0, 0, 0, 2, 2, 2]


def test_style_masses_by_a_slow_loop():
    torch.manual_seed(1)
    log_probs = torch.randn(5, 9).log_softmax(-1)
    samples, ids, classes = torch.tensor([0, 0, 1, 3, 3]), torch.tensor([2, 4, 7]), torch.tensor([1, 0, 1])
    named, masses = style_masses(log_probs, samples, ids, classes, batch=4, classes=3)
    for sample in range(4):
        rows = [log_probs[row].exp() for row in range(5) if samples[row] == sample]
        missed = math.prod(1 - float(row[ids].sum()) for row in rows)
        assert float(named[sample]) == pytest.approx(1 - missed, abs=1e-6)
        for number in range(3):
            expected = sum(float(row[ids[classes == number]].sum()) for row in rows)
            assert float(masses[sample, number]) == pytest.approx(expected, abs=1e-6)


def test_style_hit_falls_as_mass_moves_to_style_words():
    logits = torch.zeros(1, 6, requires_grad=True)
    ids, classes = torch.tensor([1, 2]), torch.tensor([0, 1])
    optimizer, values = torch.optim.SGD([logits], lr=5.0), []
    for _ in range(20):
        named, _ = style_masses(logits.log_softmax(-1), torch.tensor([0]), ids, classes, 1, 2)
        loss = global_mean(*style_hit_loss(named, torch.tensor([True])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[0] == pytest.approx(4 / 6, abs=1e-5) and values[-1] < 0.1
    total, count = style_hit_loss(named.detach(), torch.tensor([False]))
    assert float(total) == 0 and float(global_mean(total, count)) == 0


def test_consistency_is_the_symmetric_kl_over_known_classes():
    torch.manual_seed(2)
    logits, masses = torch.randn(3, 4, requires_grad=True), torch.rand(3, 4) * 0.2
    known, applies = torch.tensor([True, False, True, True]), torch.tensor([True, True, False])
    total, count = consistency_loss(logits, masses, known, applies, detach_image=False)
    expected = 0.0
    for sample in (0, 1):
        p = logits[sample, known].detach().softmax(-1)
        q = masses[sample, known] / masses[sample, known].sum()
        expected += float(((p - q) * (p.log() - q.log())).sum()) / 2
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4) and int(count) == 2
    total.backward()
    assert logits.grad[:2].abs().sum() > 0 and logits.grad[2].abs().sum() == 0
    assert not consistency_loss(logits, masses, known, applies, detach_image=True)[0].requires_grad


def test_style_head_learns_known_styles_only():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    total, count = style_head_loss(logits, torch.tensor([2, -1, 0]))
    expected = -logits[0].log_softmax(-1)[2] - logits[2].log_softmax(-1)[0]
    torch.testing.assert_close(total, expected)
    assert int(count) == 2


def test_the_supervised_head_keeps_consistency_from_uniform():
    """KL alone is 0 where both sides are uniform; with the true styles it is 0 where both are right."""
    torch.manual_seed(4)
    truth = torch.tensor([0, 1, 2])
    image, text = torch.randn(3, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    optimizer, yes = torch.optim.Adam([image, text], lr=0.1), torch.ones(3, dtype=torch.bool)
    for _ in range(200):
        loss = global_mean(*consistency_loss(image, text.softmax(-1), yes, yes, detach_image=True))
        loss = loss + global_mean(*style_head_loss(image, truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert text.argmax(-1).tolist() == truth.tolist() and text.softmax(-1).max(-1).values.min() > 0.8


def test_losses_of_a_batch_equal_losses_of_its_parts():
    """What validation sums up is what one large batch would give."""
    model, _ = build("film")
    weights = {"main": 1.0, "style_hit": 0.5, "consistency": 0.5, "style_head": 0.5}
    learner = GatedTrainingModel(model, weights).eval()
    batch = {**batch_of(model), "style_ids": torch.tensor([1, -1]), "applies": torch.tensor([True, False])}
    with torch.no_grad():
        loss, parts = learner(**batch)
        parted = measure_loss(
            learner, [{name: value[i : i + 1] for name, value in batch.items()} for i in range(2)], torch.device("cpu")
        )
    assert set(parts) == set(weights)
    assert parted["loss"] == pytest.approx(float(loss), rel=1e-4)
    for name, value in parts.items():
        assert parted[name] == pytest.approx(float(value), rel=1e-4)


def test_style_losses_skip_the_newline_and_unknown_styles():
    """A style word in place of the newline would end no answer; without a true style there is nothing to agree on."""
    model, _ = build("film")
    learner = GatedTrainingModel(model, {}).eval()
    batch = {**batch_of(model), "style_ids": torch.tensor([1, -1]), "applies": torch.tensor([True, True])}
    ends = batch["labels"] == model.prompts.newline

    def name_a_style(module, inputs, output):
        logits = output.logits.clone()
        logits[:, :-1][ends[:, 1:]] += 50.0 * (torch.arange(logits.shape[-1]) == model.styles.token_ids[0])
        return output._replace(logits=logits)

    with torch.no_grad():
        before = learner.parts(**batch)
        model.register_forward_hook(name_a_style)
        after = learner.parts(**batch)
    assert int(before["style_hit"][1]) == 2 and int(before["consistency"][1]) == 1
    assert after["main"][0] > before["main"][0] + 50
    for name in ("style_hit", "consistency"):
        torch.testing.assert_close(after[name], before[name])


def test_answers_are_measured(styles):
    def answered(prediction, answer, kind):
        return Prediction(VqaSample(0, "a.png", "?", answer, "noto", kind), prediction)

    said = [
        answered("noto", "Noto", "style"),
        answered("a cat.", "cat", "other"),
        answered("flat", "Noto", "style"),
        answered("Fluent flat", "Noto", "style"),
    ]
    found = measure_answers(said, styles)
    style, other = found["by_type"]["style"], found["by_type"]["other"]
    assert style["exact_match"] == pytest.approx(100 / 3) and style["style_hit_rate"] == pytest.approx(200 / 3)
    assert style["style_accuracy"] == pytest.approx(100 / 3) and "style_hit_rate" not in other
    assert other["exact_match"] == 0 and other["vqa_accuracy"] == 100 and found["all"]["questions"] == 4
    assert 0 < found["all"]["rougeL"] < 100
    assert "bleu" not in found["all"]  # of answers too short for it
    long = measure_answers([answered("a cat on a hat", "a cat on a mat", "other")], styles)
    assert long["all"]["bleu"] > 0


def test_question_only_baseline(styles):
    asked = [
        ("How many cats are there?", "2"),
        ("How many cats are there?", "3"),
        ("How many cats are there?", "3"),
        ("How many dogs are there?", "2"),
        ("How many suns are there?", "2"),
        ("What is it?", "noto"),
    ]
    guess = QuestionOnlyBaseline(VqaSample(0, "a.png", question, answer, "", "") for question, answer in asked)
    assert guess("How many cats are there?") == "3"  # the same question
    assert guess("How many birds are there?") == "2" and guess("How is it?") == "2"  # the longest beginning it shares
    assert guess("What?") == "2" and guess("What is that?") == "noto"
    said = [
        Prediction(VqaSample(0, "a.png", "How many dogs?", answer, "", "count"), "9")
        for answer in ("2", "two", "4", "5")
    ]
    assert measure_answers(said, styles, guess)["all"]["question_only"] == 50
    assert "question_only" not in measure_answers(said, styles)["all"]


def test_vqa_accuracy_as_in_the_paper():
    assert normalise_answer(" The two, black-cats! ") == "2 black cats" and normalise_answer("1,000.") == "1000"
    ten = ["yes"] * 2 + ["no"] * 8
    assert vqa_accuracy("Yes", ten) == pytest.approx((2 * (1 / 3) + 8 * (2 / 3)) / 10)
    assert vqa_accuracy("no", ten) == 1 and vqa_accuracy("maybe", ten) == 0
    assert vqa_accuracy("a Noto", ["noto"]) == 1
