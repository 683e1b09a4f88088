"""BLIP-2 folders as Salesforce published them before transformers 4.46, and incomplete ones.

Compared with what those revisions did: query outputs before the words' embeddings, without a placeholder.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny.blip2 import CONFIG, TEXTS
from tiny.llava import lively
from transformers import Blip2Config, Blip2ForConditionalGeneration, GenerationConfig

from blip2_gated.backbone import END, PAD, read_blip2
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from common.models.tokenizer import train_tokenizer

WEIGHTS = "model.safetensors"
# In every part of a config of that time.
GENERATION = {
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_scores": False,
    "repetition_penalty": 1.0,
    "return_dict_in_generate": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": "float32",
    "transformers_version": "4.27.0.dev0",
}


def write_revision(folder, spare_rows=7):
    """The files of February 2023: OPT's tokenizer as vocab.json and merges.txt, no <image>, no image_token_index.

    spare_rows: of the embeddings, beyond the tokenizer's; OPT has seven.
    """
    tokenizer = train_tokenizer(TEXTS, 600, PAD, END, END)
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in bpe["merges"])]))
    named = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": PAD}
    settings = {"tokenizer_class": "GPT2Tokenizer", "processor_class": "Blip2Processor", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | named))
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    text = {**CONFIG["text_config"], **ids, "eos_token_id": ids["bos_token_id"]}
    text["vocab_size"] = len(tokenizer) + spare_rows
    parts = {**CONFIG, "text_config": text}
    torch.manual_seed(0)
    model = lively(Blip2ForConditionalGeneration(Blip2Config(**parts)))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    kinds = {"vision_config": "blip_2_vision_model", "qformer_config": "blip_2_qformer", "text_config": "opt"}
    older = {name: {**GENERATION, **parts[name], "model_type": kind} for name, kind in kinds.items()}
    older["qformer_config"]["encoder_hidden_size"] = 32
    older["text_config"]["prefix"] = END
    top = {"model_type": "blip-2", "num_query_tokens": 5, "use_decoder_only_language_model": True}
    (folder / "config.json").write_text(json.dumps({**top, **older, "tie_word_embeddings": False}))
    return model, len(tokenizer)


def gated(folder):
    model, tokenizer = read_blip2(str(folder))
    return Blip2OPTGated(model, tokenizer, StyleVocabulary(tokenizer, [], [])).eval()


@torch.no_grad()
def answers(model, theirs, image):
    """(ours, theirs): logits of a prompt, and greedy texts."""
    encoded = model.prompts.encode("How many?")
    batch = model.prompts.collate([encoded])
    batch.pop("labels")
    patches = theirs.vision_model(model.normalise(image)).last_hidden_state
    queries = theirs.qformer(query_embeds=theirs.query_tokens, encoder_hidden_states=patches).last_hidden_state
    words = theirs.get_input_embeddings()(torch.tensor([encoded.prompt[5:]]))
    embeds = torch.cat([theirs.language_projection(queries), words], 1)
    theirs.language_model.generation_config = GenerationConfig()
    tokens = theirs.language_model.generate(
        inputs_embeds=embeds,
        max_new_tokens=12,
        min_new_tokens=1,
        pad_token_id=model.prompts.pad,
        eos_token_id=[model.prompts.newline, model.prompts.tokenizer.eos_token_id],
    )
    ours = model(**batch, image=image).logits, model.generate(image, "How many?", max_new_tokens=12)
    return ours, (theirs.language_model(inputs_embeds=embeds).logits, model.prompts.decode(tokens))


@pytest.mark.parametrize("spare_rows", [7, 0])
def test_the_image_token_gets_the_first_free_id(tmp_path, spare_rows):
    theirs, tokens = write_revision(tmp_path, spare_rows)
    model = gated(tmp_path)
    assert model.blip2.config.image_token_index == tokens == model.prompts.tokenizer.convert_tokens_to_ids("<image>")
    assert len(model.blip2.get_input_embeddings().weight) == tokens + spare_rows
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (logits, text), (expected, expected_text) = answers(model, theirs, image)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert text == expected_text


@pytest.mark.parametrize(
    "file, values",
    [
        ("config.json", {"return_dict_in_generate": True, "cache_implementation": "static", "use_cache": False}),
        ("config.json", {"num_beams": 4, "num_return_sequences": 2, "stop_strings": ["@@"]}),
        ("generation_config.json", {"return_dict_in_generate": True, "stop_strings": ["@@"], "num_beams": 3}),
    ],
)
def test_generation_configs_leave_search_and_results_to_us(tmp_path, file, values):
    theirs, _ = write_revision(tmp_path)
    content = json.loads((tmp_path / file).read_text()) if (tmp_path / file).is_file() else {}
    content.get("text_config", content).update(values)
    (tmp_path / file).write_text(json.dumps(content))
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    ours, expected = answers(gated(tmp_path), theirs, image)
    assert ours[1] == expected[1]


def without(prefix):
    return lambda weights: {name: value for name, value in weights.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    "edit, words",
    [
        (without("qformer."), "qformer.encoder"),
        (without("query_tokens"), "query_tokens"),
        (without("language_model."), "language_model"),
        (without("vision_model.post_layernorm.bias"), "vision_model.post_layernorm.bias"),
        (lambda weights: weights | {"qformer.embeddings.word_embeddings.weight": torch.ones(2, 48)}, "word_embeddings"),
    ],
)
def test_incomplete_folders_are_refused(tmp_path, edit, words):
    write_revision(tmp_path)
    save_file(edit(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=words) as error:
        read_blip2(str(tmp_path))
    assert f"--model.blip2 {tmp_path}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"text_config": {"model_type": "t5"}}, "t5, not OPT"),
        ({"model_type": "instructblip"}, "instructblip, not a BLIP-2"),
    ],
)
def test_other_models_are_refused_before_their_weights_are_read(tmp_path, values, words):
    write_revision(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | values))
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=words):
        read_blip2(str(tmp_path))


def test_what_older_files_hold_besides(tmp_path):
    """Pickled weights, with the tied head and the positions that are computed now."""
    write_revision(tmp_path)
    expected = read_blip2(str(tmp_path))[0].state_dict()
    weights = load_file(tmp_path / WEIGHTS)
    (tmp_path / WEIGHTS).unlink()
    weights["language_model.lm_head.weight"] = weights["language_model.model.decoder.embed_tokens.weight"].clone()
    weights["qformer.embeddings.position_ids"] = torch.arange(8)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    found = read_blip2(str(tmp_path))[0].state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
