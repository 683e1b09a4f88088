"""Every supported family of models against its publisher's way: chat template, generate and forward, one at a time."""

import copy
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import flags
from tiny.llava import WRITERS, llava_flags, picture, write_conversations
from tiny.vlm import FAMILIES, write_vlm
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from common.models.lora import PROJECTOR, part_of
from common.text.conversations import Conversation, Turn
from llava import merge_lora, train
from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import end_tokens, load_image_text_model
from llava.dataset import ConversationCollator, ConversationTokenizer
from llava.families import REASONS, SUPPORTED, check_family
from llava.model import prepare_for_training
from llava.prefix_cache import cache_images
from llava.scoring_config import ScoringConfig
from llava.tokens import ChatFormatter

# Positions in three dimensions; types of tokens, text around an image, sliding windows; tiles by rows and columns.
QUICK = ("qwen2_5_vl", "gemma3", "smolvlm")
SHAPES = [(40, 40), (90, 40), (30, 70)]
QUESTIONS = ["What is this?", "How well does the text fit? Answer in this form: Score: 10"]
LANGUAGE_PARTS = {"language_model", "text_model"}


def slow(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", params=slow([*WRITERS, *FAMILIES]))
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / request.param
    return WRITERS[request.param](path) if request.param in WRITERS else write_vlm(path, request.param)


class Published:
    """transformers' own classes and calls."""

    def __init__(self, folder: Path):
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, images, question, answer=None, system=""):
        content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        if answer:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        encoded = self.processor.apply_chat_template(messages, add_generation_prompt=not answer, **options)
        return {name: value.float() if value.is_floating_point() else value for name, value in encoded.items()}

    @torch.no_grad()
    def describe(self, inputs, tokens):
        length = inputs["input_ids"].shape[1]
        return self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0, length:].tolist()

    @torch.no_grad()
    def continuation(self, prompt, image, text):
        """Ids of a text behind a rendered prompt, and the sum of their log-probabilities."""
        starts = bool(self.processor.tokenizer.bos_token) and prompt.startswith(self.processor.tokenizer.bos_token)
        options = {"images": [[image]], "return_tensors": "pt", "add_special_tokens": not starts}
        bare = self.processor(text=[prompt.rstrip(" ")], **options)["input_ids"][0].tolist()
        inputs = self.processor(text=[prompt + text], **options)
        before = len(os.path.commonprefix([bare, inputs["input_ids"][0].tolist()]))  # a space may join a text's token
        ids = inputs["input_ids"][0, before:]
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        logits = self.model(**inputs).logits[0, before - 1 : -1].log_softmax(-1)
        return ids.tolist(), logits.gather(1, ids[:, None]).sum().item()


@pytest.fixture(scope="module")
def published(folder):
    return Published(folder)


@pytest.fixture(scope="module")
def loaded(folder):
    return load_image_text_model(str(folder), device="cpu")


def test_descriptions_and_probabilities(published, loaded):
    """Three shapes of images and prompts of two lengths in one batch; by themselves in the publisher's way."""
    model, processor = loaded
    formatter, images = ChatFormatter(processor), [picture(seed, size) for seed, size in enumerate(SHAPES)]
    cache = cache_images(model, formatter, images)
    rows = [(image, question) for image in range(3) for question in QUESTIONS]
    rests = [cache.rest(formatter.prompt(question)) for _, question in rows]
    written = cache.generate([image for image, _ in rows], rests, 12)
    likely = cache.next_log_probabilities([image for image, _ in rows], rests)
    for (image, question), rest, ids, row in zip(rows, rests, written, likely):
        inputs = published.inputs([images[image]], question, system=formatter.system)
        assert inputs["input_ids"].shape[1] == cache.prefix_tokens[image] + len(rest)
        assert published.describe(inputs, 12)[: len(ids)] == ids and len(ids)
        with torch.no_grad():
            expected = published.model(**inputs).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def test_scores(published, loaded):
    """P(Yes) and the expected score, from the probabilities of whole texts."""
    scoring = ScoringConfig(description_tokens=2, analysis_tokens=2, max_attempts=1)
    analyzer, image, text = LlavaAnalyzer(loaded=loaded, scoring=scoring), picture(1, (90, 40)), "a red star"
    result = analyzer.analyze_image(image, text)

    def opening(question, begun):
        """The conversation up to a begun answer, as the chat template writes it."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        if analyzer.formatter.system:
            system = [{"type": "text", "text": analyzer.formatter.system}]
            messages.insert(0, {"role": "system", "content": system})
        answer = {"role": "assistant", "content": [{"type": "text", "text": begun + "@"}]}
        return published.processor.apply_chat_template([*messages, answer]).rpartition("@")[0]

    _, yes = published.continuation(opening(scoring.yes_no_question(text), ""), image, "Yes")
    assert result["p_yes"] == pytest.approx(math.exp(yes), rel=1e-3)
    prompt = opening(scoring.score_question(text, result["description"]), "Score: ")
    found = {score: published.continuation(prompt, image, str(score)) for score in range(1, 11)}
    chances = {score: math.exp(likely) for score, (_, likely) in found.items()}
    if found[10][0][: len(found[1][0])] == found[1][0]:  # "1" begins "10"
        chances[1] -= chances[10]
    expected = sum(score * chance for score, chance in chances.items()) / sum(chances.values())
    assert result["expected_score"] == pytest.approx(expected, rel=1e-3)


def test_losses(published, loaded):
    """No image, two images of one conversation, one; together and by themselves."""
    model, processor = loaded
    formatter, images = ChatFormatter(processor), [picture(seed, size) for seed, size in enumerate(SHAPES)]
    tokenizer = ConversationTokenizer(formatter, end_tokens(loaded), 4096)
    samples = [("What is up?", "nothing", []), ("Compare.", "both", images[:2]), ("Describe it.", "a star", images[2:])]
    items, sums, counts = [], [], []
    for question, answer, shown in samples:
        turn = Turn("<image>\n" * len(shown) + question, answer)
        conversation = Conversation((turn,), tuple(map(str, range(len(shown)))))
        items.append((tokenizer(conversation, [image.size for image in shown]), shown))
        ours, theirs = (
            ConversationCollator(processor)(items[-1:]),
            published.inputs(shown, question, answer, formatter.system),
        )
        # The token that ends the answer is ours where the template writes none.
        length = min(ours["input_ids"].shape[1] - 1, theirs["input_ids"].shape[1])
        assert torch.equal(ours["input_ids"][:, :length], theirs["input_ids"][:, :length])
        labels = ours["labels"].clone()
        labels[:, length:] = -100
        padded = torch.full_like(theirs["input_ids"], -100)
        padded[:, :length] = labels[:, :length]
        losses = [
            part.train()(**inputs | {"labels": values}).loss
            for part, inputs, values in ((model, ours, labels), (published.model, theirs, padded))
        ]
        torch.testing.assert_close(*losses)
        counts.append((ours["labels"][:, 1:] != -100).sum())
        sums.append(model(**ours).loss * counts[-1])
    together = model(**ConversationCollator(processor)(items)).loss
    torch.testing.assert_close(together, sum(sums) / sum(counts))
    model.eval(), published.model.eval()


def test_trained_parts(loaded):
    """LoRA in the language model alone; the whole projector, wherever it lies, and nothing of the tower."""
    model = prepare_for_training(copy.deepcopy(loaded.model), 2, 4, 0.0, False, False)
    names = [name.split(".") for name, parameter in model.named_parameters() if parameter.requires_grad]
    loras = [name for name in names if "lora_A" in name]
    assert loras and all(LANGUAGE_PARTS.intersection(name) for name in loras)
    whole = [".".join(name) for name in names if not {"lora_A", "lora_B"}.intersection(name)]
    assert whole and all("modules_to_save" in name and part_of(name) == PROJECTOR for name in whole)


def next_tokens(folder, adapter=""):
    model, processor = load_image_text_model(str(folder), str(adapter), device="cpu")
    formatter = ChatFormatter(processor)
    cache = cache_images(model, formatter, [picture(0), picture(1, (90, 40))])
    rests = [cache.rest(formatter.prompt(question)) for question in QUESTIONS]
    return cache.next_log_probabilities([0, 1], rests)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WRITERS, *FAMILIES])
def test_fine_tuning(name, tmp_path):
    """An adapter has an effect, loaded as merged."""
    folder, output = tmp_path / name, tmp_path / "run"
    WRITERS[name](folder) if name in WRITERS else write_vlm(folder, name)
    data = write_conversations(tmp_path / "data", 6)
    train.main(llava_flags(folder, data, output) + flags(max_steps=2, learning_rate=0.02, show_samples=1))
    before, after = next_tokens(folder), next_tokens(folder, output)
    assert (before - after).abs().max() > 0.1
    merged = tmp_path / "merged"
    merge_lora.main(flags(model_id=folder, adapter=output, output_dir=merged, precision="fp32", device="cpu"))
    torch.testing.assert_close(next_tokens(merged), after, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "kind, reason",
    [
        *((name, reason) for reason, names in REASONS.items() for name in names),
        ("llama", "it is no model of images"),
        ("got_ocr2", "it is not tested"),
    ],
)
def test_other_families_are_refused_by_name(kind, reason):
    """Before weights are loaded, with the reason and what is supported."""
    assert kind in (*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, "llama")
    with pytest.raises(ValueError, match=rf"'{kind}' is not supported \({reason}.*supported: aria, "):
        check_family("folder", SimpleNamespace(model_type=kind))


def test_a_refusal_needs_no_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    with pytest.raises(ValueError, match=rf"{tmp_path}.*cross-attention"):
        load_image_text_model(str(tmp_path), device="cpu")


def test_every_supported_family_is_tested():
    assert {*WRITERS, *FAMILIES} - {"llava_pixtral"} == set(SUPPORTED)  # which is a Llava model
