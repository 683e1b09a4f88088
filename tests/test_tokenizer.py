"""Tokenizers of published folders against sentencepiece itself; no code of a folder is run."""

import json

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tiny.vitp import TEXT
from transformers import LlamaConfig, T5Config

from common.models.tokenizer import load_tokenizer
from vitp.chat_template import CONTEXT, ChatTemplate, prepare_tokenizer
from vitp.processing import read_tokenizer

SENTENCES = [
    f"a picture number {i} of a cat and a dog, in {w} style" for i in range(60) for w in ("bold", "soft", "pop")
]
TEXTS = [*SENTENCES[:3], "  two spaces", " a", "x", "", "a\nline  and a tab\t.", "书生·万象 painted 🙂 é ①"]
SPECIAL = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", CONTEXT)


def sentencepiece(path, **options):
    """Train a small model, write it to `path` -> sentencepiece's own tokenizer."""
    with path.open("wb") as file:
        options = {"vocab_size": 400, "hard_vocab_limit": False, "minloglevel": 2} | options
        SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES), model_writer=file, **options)
    return SentencePieceProcessor(model_file=str(path))


def internlm2(folder, add_dummy_prefix=True, model_type="bpe"):
    """A folder with the files and fields of InternVL2_5-2B -> sentencepiece's tokenizer."""
    folder.mkdir(exist_ok=True)
    ids = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
    exact = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    theirs = sentencepiece(
        folder / "tokenizer.model", **ids, **exact, model_type=model_type, add_dummy_prefix=add_dummy_prefix
    )
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False) | {"special": True}
    tokens = {0: "<unk>", 1: "<s>", 2: "</s>"} | {len(theirs) + i: token for i, token in enumerate(SPECIAL)}
    settings = {
        "added_tokens_decoder": {str(number): {"content": token, **flags} for number, token in tokens.items()},
        "additional_special_tokens": list(SPECIAL),
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "tokenizer_class": "InternLM2Tokenizer",
        "clean_up_tokenization_spaces": False,
        **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return theirs


@pytest.mark.parametrize("prefix", [True, False])
def test_internlm2(tmp_path, prefix):
    theirs = internlm2(tmp_path, prefix)
    tokenizer = read_tokenizer(str(tmp_path))
    size = len(theirs)
    assert len(tokenizer) == size + len(SPECIAL) and tokenizer.convert_tokens_to_ids(CONTEXT) == size + 4
    assert tokenizer("a").input_ids == [1, *theirs.encode("a")] and tokenizer.pad_token == "</s>"
    for text in TEXTS:
        ids = theirs.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.decode(ids) == theirs.decode(ids)
    # Special tokens stand between texts that are encoded apart, as InternLM2's own class does it.
    mixed = tokenizer.encode("<|im_start|>a cat<|im_end|>\nbold", add_special_tokens=False)
    assert mixed == [size, *theirs.encode("a cat"), size + 1, *theirs.encode("\nbold")]
    prepare_tokenizer(tokenizer)
    assert len(tokenizer) == size + len(SPECIAL) + 1 and ChatTemplate(tokenizer).prefix == "<s>"  # and <video>
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").encode(TEXTS[3]) == tokenizer.encode(TEXTS[3])


def test_what_cannot_be_converted(tmp_path):
    internlm2(tmp_path, model_type="unigram")
    with pytest.raises(ValueError, match="tokenizer.model: .* other ids than sentencepiece"):
        read_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match="code of its own, which is never run; .*-hf.*--tokenizer"):
        read_tokenizer(str(tmp_path))


@pytest.mark.parametrize("config", ['{"model_max_length": 512}', ""])
def test_t5_with_spiece_alone(tmp_path, config):
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    theirs = sentencepiece(tmp_path / "spiece.model", **ids, model_type="unigram", vocab_size=150)
    T5Config(vocab_size=len(theirs) + 100).save_pretrained(tmp_path)
    if config:
        (tmp_path / "tokenizer_config.json").write_text(config)
    tokenizer = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert tokenizer(text).input_ids == [*theirs.encode(text), 1], text
    assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [len(theirs) + 99, len(theirs)]


def test_a_tokenizer_json_goes_before_a_class_of_the_folder(tmp_path):
    theirs = internlm2(tmp_path / "own")
    read_tokenizer(str(tmp_path / "own")).save_pretrained(tmp_path / "fast")
    settings = json.loads((tmp_path / "fast" / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": [None, "tokenization_own.OwnFast"]}
    (tmp_path / "fast" / "tokenizer_config.json").write_text(json.dumps(settings))
    LlamaConfig(**TEXT).save_pretrained(tmp_path / "fast")
    assert load_tokenizer(tmp_path / "fast").encode(TEXTS[3], add_special_tokens=False) == theirs.encode(TEXTS[3])
