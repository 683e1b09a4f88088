"""LLaVA folders as they were published over the years, and incomplete ones."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny.llava import lively, picture, write_sentence_encoder
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration, SiglipVisionConfig

from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import load_image_text_model
from llava.model import build_llava, build_tokenizer, small_language
from llava.prefix_cache import ImagePrefixCache
from llava.scoring_config import ScoringConfig
from llava.sentence_encoder import SentenceEncoder
from llava.tokens import ChatFormatter, encode_images

WEIGHTS = "model.safetensors"
# llava-hf/llava-1.5-7b-hf's chat_template.json, without its comments and `generation` marks.
PUBLISHED_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.fixture
def folder(llava_folders, tmp_path):
    return shutil.copytree(llava_folders["llava"], tmp_path / "llava")


def edit_json(path, **values):
    """Values to set; None removes a name."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({key: value for key, value in {**content, **values}.items() if value is not None}))


def answers(folder, tokens=6):
    """Ids of greedy answers by our cache; by transformers' generate, of a processor that is whole."""
    model, processor = load_image_text_model(str(folder), device="cpu")
    formatter = ChatFormatter(processor)
    prompt = formatter.prompt("What is this?")
    cache = ImagePrefixCache(model, formatter, [picture(0)])
    return cache.generate([0], [cache.rest(prompt)], tokens)[0], (model, processor, prompt)


def as_of_2023(folder):
    """llava-hf's first revision: preprocessor_config.json and a tokenizer, nothing else."""
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    edit_json(folder / "preprocessor_config.json", **images, processor_class="LlavaProcessor")
    (folder / "processor_config.json").unlink()
    (folder / "chat_template.jinja").unlink()


def test_the_first_published_revision_answers_as_todays(folder, capsys):
    expected, (_, processor, prompt) = answers(folder)
    as_of_2023(folder)
    assert answers(folder)[0] == expected
    assert "chat template" in capsys.readouterr().err
    processor.chat_template = PUBLISHED_TEMPLATE
    assert ChatFormatter(processor).prompt("What is this?") == prompt


@pytest.mark.parametrize(
    "values",
    [
        {"num_additional_image_tokens": None},  # of 2024: 575 tokens for 576 features
        {"patch_size": None, "num_additional_image_tokens": None},
        {"vision_feature_select_strategy": None},
        {"vision_feature_select_strategy": "full"},  # another than the model's
        {"patch_size": 16},
    ],
)
def test_the_models_config_counts_an_images_tokens(folder, values):
    expected, _ = answers(folder)
    edit_json(folder / "processor_config.json", **values)
    assert answers(folder)[0] == expected


def test_a_siglip_tower_has_no_class_token(tmp_path):
    """As TinyLLaVA and others: every token of the tower is a patch."""
    tokenizer = build_tokenizer(["a red star on a beach USER: ASSISTANT:"], 400)
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    model, processor = build_llava(tokenizer, vision, small_language(tokenizer, 32, 2))
    lively(model).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    edit_json(tmp_path / "processor_config.json", num_additional_image_tokens=1, patch_size=None)
    _, (_, processor, _) = answers(tmp_path)
    assert len(encode_images(processor, [[picture(0)]]).runs[0]) == 16


def test_a_tokenizer_without_the_image_token(folder):
    """Vicuna's own, as some conversions ship it; the config says which id is free."""
    plain = build_tokenizer(["a red star on a beach USER: ASSISTANT:"], 400)
    tokens = json.loads(plain.backend_tokenizer.to_str())
    tokens["added_tokens"] = [token for token in tokens["added_tokens"] if token["content"] != "<image>"]
    last = len(plain) - 1
    vocabulary = {word: 3 if token == last else token for word, token in tokens["model"]["vocab"].items()}
    tokens["model"]["vocab"] = {word: token for word, token in vocabulary.items() if word != "<image>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    edit_json(folder / "tokenizer_config.json", image_token=None, extra_special_tokens=None)
    edit_json(folder / "config.json", image_token_index=last)
    _, (model, processor, _) = answers(folder)
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id == last
    edit_json(folder / "config.json", image_token_index=last - 1)
    with pytest.raises(ValueError, match="config.json"):
        load_image_text_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    "values",
    [
        {"return_dict_in_generate": True, "output_scores": True},
        {"cache_implementation": "static"},
        {"use_cache": False},  # as training leaves it
        {"prompt_lookup_num_tokens": 3},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"stop_strings": ["@@"]},
        {"max_length": 2},
        {"temperature": 0.9, "top_p": 0.6},  # Vicuna's; saving a changed config with them fails
    ],
)
def test_generation_configs_leave_search_and_results_to_us(folder, tmp_path, values):
    expected, (_, _, _) = answers(folder)
    edit_json(folder / "generation_config.json", **values)
    found, (model, _, _) = answers(folder)
    assert found == expected
    model.save_pretrained(tmp_path / "saved")


def test_stop_strings_end_an_answer(folder):
    scoring = ScoringConfig(description_tokens=30, analysis_tokens=2)
    whole = LlavaAnalyzer(str(folder), device="cpu", scoring=scoring).analyze_image(picture(0), "a star")["description"]
    stop = next(letter for letter in whole[1:] if letter.isalpha() and letter.isascii())
    edit_json(folder / "generation_config.json", stop_strings=[stop])
    short = LlavaAnalyzer(str(folder), device="cpu", scoring=scoring).analyze_image(picture(0), "a star")["description"]
    assert len(short) < len(whole) and whole.startswith(short) and not short.endswith(stop)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda weights: {k: v for k, v in weights.items() if "projector" not in k}, "multi_modal_projector"),
        (lambda weights: {k: v for k, v in weights.items() if ".layers.1.mlp" not in k}, "layers.1.mlp"),
        (lambda weights: weights | {"model.mm_projector.0.weight": torch.ones(2)}, "mm_projector.0.weight"),
    ],
)
def test_incomplete_folders_are_refused(folder, edit, words):
    save_file(edit(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=words) as error:
        load_image_text_model(str(folder), device="cpu")
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_tensors_that_older_files_held_are_no_hindrance(folder):
    """Frequencies and positions, which are computed now; pickled weights."""
    expected, _ = answers(folder)
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    weights["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save(weights, folder / "pytorch_model.bin")
    assert answers(folder)[0] == expected


def test_original_layouts_are_named(folder):
    for values in ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, {"model_type": "llava_llama"}):
        edit_json(folder / "config.json", **values)
        with pytest.raises(ValueError, match="llava-hf/llava-1.5-7b-hf"):
            load_image_text_model(str(folder), device="cpu")


def test_other_chats_get_no_vicuna_template(folder):
    """LLaVA with Llama 3, as xtuner publishes it, has another template than LLaVA 1.5."""
    (folder / "chat_template.jinja").unlink()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["<|start_header_id|>"] = tokenizer["model"]["vocab"].pop("~~", 500)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="chat_template"):
        load_image_text_model(str(folder), device="cpu")


def test_the_answers_are_those_of_transformers(folder):
    """Its own classes, its own generate."""
    ours, (_, processor, prompt) = answers(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert isinstance(model, LlavaForConditionalGeneration)
    inputs = processor(images=[picture(0)], text=[prompt], return_tensors="pt")
    theirs = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert theirs.tolist()[: len(ours)] == ours


def test_a_sentence_encoder_pools_as_its_folder_says(tmp_path):
    """sentence-transformers' 1_Pooling: the first token for BGE and GTE; max and others are refused."""
    folder, texts = write_sentence_encoder(tmp_path), ["a red star", "a beach"]
    mean = SentenceEncoder(str(folder)).encode(texts)
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    edit_json(pooling, word_embedding_dimension=16, pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)
    assert torch.equal(SentenceEncoder(str(folder)).encode(texts), mean)
    edit_json(pooling, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    encoder = SentenceEncoder(str(folder))
    states = encoder.model(**encoder.tokenizer(texts[0], return_tensors="pt")).last_hidden_state
    expected = torch.nn.functional.normalize(states[:, 0], dim=1)
    torch.testing.assert_close(encoder.encode(texts)[:1], expected, atol=1e-5, rtol=0)
    edit_json(pooling, pooling_mode_cls_token=False, pooling_mode_max_tokens=True)
    with pytest.raises(ValueError, match="--sentence_encoder.*max_tokens"):
        SentenceEncoder(str(folder))
