"""Calls as LAVIS's and transformers' examples of BLIP-2 type them."""

import pytest
import torch
from tiny.blip2 import batch_of, build
from tiny.llava import picture

QUESTIONS = ["How many?", "In which style is this drawn?"]


@pytest.fixture(scope="module")
def model():
    model, _ = build("film")
    torch.manual_seed(8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.fixture
def pixels(model):
    return batch_of(model)["image"]  # (2, 3, 32, 32) uint8


def test_predict_answers_of_lavis(model, pixels):
    samples = {"image": model.normalise(pixels), "text_input": QUESTIONS}
    expected = model.predict_answers(pixels, QUESTIONS, num_beams=3, max_new_tokens=6, length_penalty=-1.0)
    found = model.predict_answers(samples, num_beams=3, max_len=6, min_len=1, length_penalty=-1.0)
    assert found == expected and any(expected)
    assert model.predict_answers(samples=samples, inference_method="generate") == model.predict_answers(
        pixels, QUESTIONS
    )
    defaults = {"num_beams": 5, "inference_method": "generate", "max_len": 10, "min_len": 1, "length_penalty": 0}
    lists = {"num_ans_candidates": 128, "answer_list": None, "prompt": ""}
    assert model.predict_answers(samples, **defaults, **lists) == model.predict_answers(pixels, QUESTIONS)
    whole = model.predict_answers({"image": pixels, "text_input": QUESTIONS}, max_len=9, min_len=9)
    assert whole != expected  # as many tokens as asked for
    one = model.predict_answers({"image": samples["image"], "text_input": "How many?"})
    assert one == model.predict_answers(pixels, ["How many?"] * 2)  # one question for all
    file = picture(1)
    assert model.predict_answers({"image": file, "text_input": "How many?"}) == model.predict_answers(file, "How many?")


def test_generate_of_lavis(model, pixels):
    image = model.normalise(pixels[:1])
    assert model.generate({"image": image}) == model.generate(pixels[:1], [""])
    asked = model.generate({"image": image, "prompt": "Question: How many? Answer:"}, max_length=5)
    assert asked == model.generate(pixels[:1], ["How many?"], max_new_tokens=5)
    torch.manual_seed(0)
    captions = model.generate({"image": image}, use_nucleus_sampling=True, num_captions=3, max_length=8)
    assert len(captions) == 3 and len(set(captions)) > 1


def test_a_prompt_replaces_the_template(model, pixels):
    short = "Question: {} Short answer:"
    prompts = model.prompts.with_template(short)
    text = model.prompts.tokenizer.decode(prompts.encode("How many?").prompt[5:])
    assert text.endswith("Question: How many? Short answer:")
    found = model.predict_answers({"image": pixels, "text_input": QUESTIONS}, prompt=short)
    own, model.prompts = model.prompts, prompts
    expected = model.predict_answers(pixels, QUESTIONS)
    model.prompts = own
    assert found == expected != model.predict_answers(pixels, QUESTIONS)
    with pytest.raises(ValueError, match="'Question:': expected {} once"):
        model.predict_answers(pixels, QUESTIONS, prompt="Question:")


def test_a_question_may_come_in_its_template(model):
    """transformers' examples write the whole prompt; the template around it again would ask another question."""
    for question in ("Question: How many? Answer:", " Question:  How many? Answer: "):
        assert model.prompts.encode(question) == model.prompts.encode("How many?")
    assert model.prompts.encode("Question: How many?") != model.prompts.encode("How many?")


def test_answers_of_a_list_are_ranked(model, pixels):
    """Never another text than one of the list, and the most probable by a slow loop over tokens."""
    answers = ["Noto", "two", "two black cats", "Answer", "cats"]
    expected = []
    for row, question in enumerate(QUESTIONS):
        scores = []
        for answer in answers:
            encoded = model.prompts.encode(question, answer)
            batch = model.prompts.collate([encoded])
            batch.pop("labels")
            with torch.no_grad():
                log_probs = model(**batch, image=pixels[row : row + 1]).logits[0].log_softmax(-1)
            places = enumerate(encoded.answer, len(encoded.prompt))
            scores.append(sum(float(log_probs[place - 1, token]) for place, token in places))
        expected.append(answers[scores.index(max(scores))])
    samples = {"image": model.normalise(pixels), "text_input": QUESTIONS}
    assert model.predict_answers(samples, answer_list=answers) == expected
    assert model.predict_answers(samples, answer_list=answers, inference_method="rank") == expected
    assert model.predict_answers(samples, answer_list=["cats"]) == ["cats"] * 2
    free = model.predict_answers(samples, answer_list=["cats"], inference_method="generate")
    assert free == model.predict_answers(pixels, QUESTIONS)
    with torch.no_grad():
        batch = model.prompts.collate([model.prompts.encode(QUESTIONS[0])])
        batch.pop("labels")
        first = model(**batch, image=pixels[:1]).logits[0, -1]
    likeliest = max(answers, key=lambda answer: first[model.prompts.encode("", answer).answer[0]])
    assert model.predict_answers(samples, answer_list=answers, num_ans_candidates=1)[0] == likeliest
    with pytest.raises(ValueError, match="'rank': expected 'generate', or 'rank' with an answer_list"):
        model.predict_answers(samples, inference_method="rank")


def test_generation_ends_at_the_newline(pixels):
    """As in LAVIS: BLIP-2's answers end with one, and tokens behind it would cost time and change the beams' scores."""
    model, _ = build("film")
    steps = []

    def say_newline(module, inputs, output):
        steps.append(len(output.logits))
        output.logits[..., model.prompts.newline] += 50.0

    model.blip2.language_model.register_forward_hook(say_newline)
    assert model.generate(pixels, QUESTIONS, min_new_tokens=0, max_new_tokens=20) == ["", ""] and len(steps) == 1


def test_pixels_normalised_twice_are_refused(model, pixels):
    with pytest.raises(ValueError, match="normalised already would be normalised twice"):
        model.predict_answers(model.normalise(pixels), QUESTIONS)
    with pytest.raises(ValueError, match="floats in 0..1; expected LAVIS's normalised pixels"):
        model.predict_answers({"image": pixels / 255, "text_input": QUESTIONS})
    assert model.predict_answers(pixels / 255, QUESTIONS) == model.predict_answers(pixels, QUESTIONS)
    with pytest.raises(ValueError, match=r"samples with \['pixel_values'\]: expected 'image'"):
        model.predict_answers({"pixel_values": pixels})
