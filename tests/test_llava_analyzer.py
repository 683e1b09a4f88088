"""Two-stage analysis: batches equal single images to the token, whatever the processor; strict scores; bad input."""

import shutil

import numpy as np
import pytest
import torch
from tiny.llava import picture, write_internvl, write_llava, write_llava_next, write_timm_llava

from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import LoadedModel, choose_attention, choose_dtype, load_image_text_model
from llava.config import PROMPTS, VICUNA_SYSTEM
from llava.prefix_cache import ImagePrefixCache
from llava.sampling import SeededSampling, keep_top
from llava.score_parsing import expected_score, option_probabilities, parse_analysis
from llava.scoring_config import ScoringConfig
from llava.tokens import ChatFormatter

SHORT = ScoringConfig(description_tokens=8, analysis_tokens=8, max_attempts=2)
WRITERS = {"llava": write_llava, "llava_next": write_llava_next, "internvl": write_internvl, "timm": write_timm_llava}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("llava_models")
    return {name: write(root / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="session")
def tiny(folders):
    return load_image_text_model(str(folders["llava"]), device="cpu")


def by_position(results):
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


@pytest.mark.parametrize("name", WRITERS)
def test_a_batch_equals_its_images_alone(folders, name):
    images = [picture(0, (40, 40)), picture(1, (80, 40)), picture(2, (40, 90))]
    texts = ["a red star", "a very much longer text about a star on a beach and about nothing else", "beach"]
    pairs = [(images[place % 3], texts[place // 2]) for place in range(6)]
    loaded = load_image_text_model(str(folders[name]), device="cpu")
    together = by_position(LlavaAnalyzer(loaded=loaded, scoring=SHORT, batch_size=4).analyze_many(pairs, quiet=True))
    alone = LlavaAnalyzer(loaded=loaded, scoring=SHORT, batch_size=1)
    for pair, batched in zip(pairs, together):
        single = alone.analyze_image(*pair)
        for key in ("description", "response", "score", "attempts", "prompt", "tokens"):
            assert batched[key] == single[key], key
        assert batched["p_yes"] == pytest.approx(single["p_yes"], rel=1e-3)
        assert batched["expected_score"] == pytest.approx(single["expected_score"], abs=1e-4)
    assert len({result["description"] for result in together}) > 1


@pytest.mark.parametrize("name", WRITERS)
def test_the_shared_prefix_gives_what_the_processor_and_generate_give(folders, name):
    """The reference: everything through the processor's own call, no cache from elsewhere."""
    model, processor = load_image_text_model(str(folders[name]), device="cpu")
    formatter, image = ChatFormatter(processor), picture(3, (90, 40))
    prompt = formatter.prompt("What is this?")
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        logits = model(**inputs).logits[:, -1].log_softmax(-1)
    shared = ImagePrefixCache(model, formatter, [picture(4), image])
    ids = [*shared.head[:-1], *shared.rest(prompt)]
    expected = [one for one in inputs["input_ids"][0].tolist() if one in set(ids)]
    assert [one for one in expected if one not in processor.tokenizer.all_special_ids] == [
        one for one in ids if one not in processor.tokenizer.all_special_ids
    ]
    found = shared.generate([1], [shared.rest(prompt)], 8)[0]
    assert found == written.tolist()[: len(found)] and len(found) >= 1
    torch.testing.assert_close(shared.next_log_probabilities([1], [shared.rest(prompt)]), logits, atol=1e-4, rtol=1e-4)


def test_images_are_encoded_once(tiny, monkeypatch):
    seen = []
    tower = tiny.model.model.vision_tower
    real = type(tower).forward
    monkeypatch.setattr(
        type(tower), "forward", lambda self, pixels, **more: seen.append(len(pixels)) or real(self, pixels, **more)
    )
    image = picture(0)
    pairs = [(image, text) for text in ("a", "b", "c", "d", "e")] + [(picture(1), "a")]
    results = list(LlavaAnalyzer(loaded=tiny, scoring=SHORT, batch_size=2).analyze_many(pairs, quiet=True))
    assert seen == [2] and len(results) == 6


def test_vqascore_is_the_probability_of_yes(tiny):
    """Against the definition: the product of the probabilities of the tokens of the answer, by the model's own call."""
    analyzer = LlavaAnalyzer(loaded=tiny, scoring=SHORT)
    image = picture(5)
    found = analyzer.analyze_image(image, "a star")
    prompt = analyzer.formatter.prompt(PROMPTS["en"]["yes_no"].replace("{text}", "a star"))
    whole = tiny.processor(images=[image], text=[prompt + " Yes"], return_tensors="pt")
    start = len(tiny.processor(images=[image], text=[prompt])["input_ids"][0])
    with torch.no_grad():
        logs = tiny.model(**whole).logits[0].log_softmax(-1)
    ids = whole["input_ids"][0]
    expected = torch.stack([logs[place - 1, ids[place]] for place in range(start, len(ids))]).sum().exp()
    assert len(ids) > start and found["p_yes"] == pytest.approx(float(expected), rel=1e-3)


def test_expected_score_tells_1_from_the_1_of_10():
    after = {(): {1: 0.6, 2: 0.4}, (1,): {0: 0.75, 9: 0.25}}

    def next_log_probability(prefix):
        table = torch.full((10,), 1e-30)
        for token, share in after[prefix].items():
            table[token] = share
        return table.log()

    options = [[1], [2], *([number] for number in range(3, 10)), [1, 0]]
    found = option_probabilities(options, next_log_probability)
    np.testing.assert_allclose(found.numpy(), [0.15, 0.4, 0, 0, 0, 0, 0, 0, 0, 0.45], atol=1e-6)
    assert expected_score(found) == pytest.approx(0.15 + 0.8 + 4.5)


def test_analysis_is_what_follows_the_score():
    assert parse_analysis("Score: 8\nAnalysis: it is a cat\nand sleeps") == "it is a cat\nand sleeps"
    assert parse_analysis("评分：8\n分析：很好") == "很好"
    assert parse_analysis("Score: 8\nIt is a cat.") == "It is a cat."
    assert parse_analysis("A cat.") == "A cat."


def test_a_score_is_asked_for_again_and_never_invented(tiny, monkeypatch):
    """The prompt itself says '1' and '10': nothing of it may be read as a score."""
    analyzer = LlavaAnalyzer(
        loaded=tiny, scoring=ScoringConfig(description_tokens=2, analysis_tokens=4, max_attempts=3)
    )
    answers = iter(["I cannot say", "Score: 12", "Score: 6\nAnalysis: so"])
    real = LlavaAnalyzer._decode
    monkeypatch.setattr(LlavaAnalyzer, "_decode", lambda self, ids: next(answers) if len(ids) != 2 else real(self, ids))
    monkeypatch.setattr(ImagePrefixCache, "generate", lambda self, images, rests, most, *_: [[5] * most] * len(rests))
    found = analyzer.analyze_image(picture(0), "a star")
    assert (found["score"], found["attempts"], found["analysis"]) == (6, 3, "so")
    answers = iter(["no", "none", "never", "too often"])
    found = analyzer.analyze_image(picture(0), "a star")
    assert found["score"] is None and found["attempts"] == 3 and found["response"] == "never"


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]).log()
    assert (keep_top(logits, 0.9) > -torch.inf).tolist() == [[True, True, True, False], [True, False, False, False]]
    assert torch.equal(keep_top(logits, 1.0), logits)


def test_seeded_sampling_draws_from_the_softmax():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    sampling = SeededSampling(list(range(4000)), 1.0, 1.0)
    drawn = sampling(torch.zeros(4000, 1), logits.expand(4000, 3)).argmax(-1)
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.5, 0.3, 0.2], atol=0.03)
    again = SeededSampling([7], 1.0, 1.0)(torch.zeros(1, 1), logits[None])
    assert torch.equal(again, SeededSampling([3, 7], 1.0, 1.0)(torch.zeros(2, 1), logits.expand(2, 3))[1:])


def test_prompts_follow_the_chat_template(folders, tiny):
    formatter = ChatFormatter(tiny.processor)
    assert formatter.prompt("Why?") == f"{VICUNA_SYSTEM} USER: <image>\nWhy? ASSISTANT:"
    assert formatter.begin_answer("p", "Yes") == "p Yes"
    chatml = ChatFormatter(load_image_text_model(str(folders["internvl"]), device="cpu").processor)
    assert chatml.prompt("Why?") == "<|im_start|>user\n<IMG_CONTEXT>\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.begin_answer("p", "Yes") == "pYes"
    assert ChatFormatter(tiny.processor, "Be brief.").prompt("x").startswith("Be brief.")


def test_the_description_is_fed_on_request(tiny):
    fed = LlavaAnalyzer(
        loaded=tiny, scoring=ScoringConfig(feed_description=True, description_tokens=6, analysis_tokens=4)
    )
    found = fed.analyze_image(picture(2), "a {description} in braces")
    assert (
        f"found: {found['description']}\n" in found["prompt"] and "Text: a {description} in braces" in found["prompt"]
    )
    plain = LlavaAnalyzer(loaded=tiny, scoring=SHORT).analyze_image(picture(2), "x")
    assert "first look" not in plain["prompt"]


def test_bad_pairs_are_named_and_the_batch_goes_on(tiny, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    pairs = [
        (picture(0), "good"),
        (tmp_path / "absent.png", "x"),
        (tmp_path / "broken.png", "x"),
        (picture(0), "  "),
        (picture(1), "with <image> in it"),
        (picture(1), None),
    ]
    found = by_position(LlavaAnalyzer(loaded=tiny, scoring=SHORT).analyze_many(pairs, quiet=True))
    assert "error" not in found[0]
    for result, words in zip(found[1:], ["no such file", "not an image", "empty", "<image>", "empty"]):
        assert words in result["error"] and "\n" not in result["error"]
    with pytest.raises(ValueError, match="empty"):
        LlavaAnalyzer(loaded=tiny).analyze_image(picture(0), "")


def test_wrong_folders_and_formats_are_one_line(folders, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folders["llava"], bare)
    for name in ("processor_config.json", "chat_template.jinja", "preprocessor_config.json"):
        (bare / name).unlink(missing_ok=True)
    for folder, words in ((bare, "processor"), (tmp_path, "config.json"), ("no/such model", "cannot be loaded")):
        with pytest.raises(ValueError, match=words) as caught:
            load_image_text_model(str(folder), device="cpu")
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="bitsandbytes"):
        load_image_text_model(str(folders["llava"]), device="cpu", bits=4)
    with pytest.raises(ValueError, match="adapter_config"):
        load_image_text_model(str(folders["llava"]), str(tmp_path), device="cpu")
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) == torch.float32 and choose_attention("auto", cpu, torch.float32) == "sdpa"
    with pytest.raises(ValueError, match="fp16"):
        choose_dtype("fp16", cpu)


def test_a_loaded_model_is_taken_as_it_is(tiny):
    assert LlavaAnalyzer(loaded=LoadedModel(*tiny)).model is tiny.model
