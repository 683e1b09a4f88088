"""LLaVA as its guide describes it: what a reader types first works (docs/from-the-guides.md)."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, flags
from safetensors.torch import load_file, save_file
from tiny.llava import llava_flags, picture, write_pictures, write_sentence_encoder
from transformers import AutoProcessor, LlavaForConditionalGeneration

from common.cli.settings import read_settings
from common.samples.layouts import create_sample_dataset
from llava import config, evaluate, inference, train
from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import load_image_text_model
from llava.model import build_llava, build_tokenizer, small_language, small_vision
from llava.prefix_cache import ImagePrefixCache
from llava.score_parsing import parse_analysis, parse_score
from llava.scoring_config import ScoringConfig
from llava.tokens import ChatFormatter, encode_images
from multimodal_utils import build_projector, merge_image_tokens, project_sequence_embed

QUICK = flags(device="cpu", description_tokens=4, analysis_tokens=4)
PROMPT = "USER: <image>\nDescribe this image..."


@pytest.fixture(scope="module")
def loaded(llava_folders):
    return load_image_text_model(str(llava_folders["llava"]), device="cpu")


@pytest.mark.parametrize("folder", [".", "clip", "llava"])
def test_requirements_lie_in_the_folder_of_the_model(folder):
    install = [sys.executable, "-m", "pip", "install", "-r", "requirements.txt"]
    assert subprocess.run([*install, "-q", "--dry-run", "--no-index", "--no-deps"], cwd=ROOT / folder).returncode == 0


def test_inference_after_an_edit_of_config(llava_folders, monkeypatch, capsys):
    """The first is the path of the image, the second the text; started in llava/, where the guide is."""
    monkeypatch.chdir(ROOT / "llava")
    model = flags(model_id=llava_folders["llava"])
    monkeypatch.setattr(config, "test_cases", [("docs/maps.png", "A portrait of an old man."), ("eval.py", "no image")])
    good, bad = inference.main([*model, *QUICK])
    assert good["image"] == str(ROOT / "docs/maps.png") and "not an image" in bad["error"]
    shown = capsys.readouterr().out
    assert "score  " in shown and "analysis  " in shown
    monkeypatch.setattr(config, "IMAGE", "../docs/maps.png")
    monkeypatch.setattr(config, "TEXT", "A map.")
    (result,) = inference.main([*model, *QUICK, "--json"])
    assert (result["image"], result["text"]) == ("../docs/maps.png", "A map.")
    assert result.keys() >= {"description", "score", "analysis"}


def test_the_guides_prompts(llava_folders, monkeypatch, tmp_path):
    """'USER:' and '<image>' come from the chat template, and once only."""
    monkeypatch.setitem(config.PROMPTS["en"], "describe", PROMPT)
    write_pictures(tmp_path, 1)
    read = []
    encode = ChatFormatter.prompt
    monkeypatch.setattr(ChatFormatter, "prompt", lambda self, text: read.append(encode(self, text)) or read[-1])
    inference.main(flags(model_id=llava_folders["llava"], image=tmp_path / "0.png", text="a star") + QUICK)
    assert f"{config.VICUNA_SYSTEM} {PROMPT} ASSISTANT:" in read
    answer = "Score: 7\nAnalysis: the star is red"
    assert (parse_score(answer), parse_analysis(answer)) == (7, "the star is red")
    assert parse_score("Score: [1-10]\nAnalysis: [reasoning]") is None


def test_generation_is_beam_search_and_sampling(llava_folders, tmp_path):
    """--num_beams, 0 for the description, 0.3 and 0.9 for the score; the temperature of a stage has its own name."""
    write_pictures(tmp_path, 1)
    given = flags(model_id=llava_folders["llava"], image=tmp_path / "0.png", text="a star") + QUICK
    given += ["--description_tokens", "12"]
    (plain,), (beams,) = inference.main(given), inference.main([*given, "--num_beams", "3"])
    assert plain["response"] == beams["response"] and plain["description"] != beams["description"]
    scoring = ScoringConfig()
    assert (scoring.description_temperature, scoring.score_temperature, scoring.top_p) == (0, 0.3, 0.9)
    for wrong, hint in (["--temperature", "--score_temperature"], ["--num_beams", "--num_beams"]):
        with pytest.raises(ValueError, match=hint):
            inference.main([*given, wrong, "0"])
    with pytest.raises(ValueError, match="--num_beams"):
        inference.main([*given, *flags(server_url="http://localhost:1", num_beams=2)])


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl"])
def test_beams_are_those_of_generate(llava_folders, name):
    model, processor = load_image_text_model(str(llava_folders[name]), device="cpu")
    formatter, image = ChatFormatter(processor), picture(3, (90, 40))
    prompt = formatter.prompt("What is this?")
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    expected = model.generate(**inputs, max_new_tokens=8, do_sample=False, num_beams=3)[
        0, inputs["input_ids"].shape[1] :
    ]
    cache = ImagePrefixCache(model, formatter, [picture(4), image])
    assert cache.generate([1, 0, 1], [cache.rest(prompt)] * 3, 8, num_beams=3)[::2] == [expected.tolist()] * 2


def test_the_guides_loading_code(llava_folders, tmp_path):
    """As printed, but for FlashAttention, which needs a GPU: attention 'auto' takes it where it can be used. And the
    example of transformers' documentation."""
    folder = str(llava_folders["llava"])
    model = LlavaForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=True)
    processor = AutoProcessor.from_pretrained(folder, padding_side="right", do_convert_rgb=True)
    inputs = processor(images=picture(0), text=PROMPT, return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    write_pictures(tmp_path, 1)
    content = [{"type": "image", "url": str(tmp_path / "0.png")}, {"type": "text", "text": "Describe this image..."}]
    chat = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **chat)
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    analyzer = LlavaAnalyzer(folder, device="cpu")
    assert isinstance(analyzer.model, LlavaForConditionalGeneration) and type(analyzer.processor) is type(processor)


def test_analyze_image_as_printed(loaded, tmp_path):
    write_pictures(tmp_path, 1)
    analyzer = LlavaAnalyzer(loaded=loaded, scoring=ScoringConfig(description_tokens=4, analysis_tokens=4))
    result = analyzer.analyze_image(image_path=tmp_path / "0.png", text="a star")
    assert list(result)[:3] == ["description", "score", "analysis"]


def test_the_data_flow(loaded):
    """Image tokens in front of the text tokens: the guide's lines, with get_input_embeddings() called first."""
    model, processor = loaded
    vit, adapter, lm = model.model.vision_tower, model.model.multi_modal_projector, model.model.language_model
    pixels = processor.image_processor(picture(0), return_tensors="pt")["pixel_values"]
    prompt_tokens = processor.tokenizer("a red star", return_tensors="pt")["input_ids"]
    image_features = vit(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]  # without CLS
    projected_features = adapter(image_features)
    with pytest.raises(TypeError):
        lm.get_input_embeddings(prompt_tokens)
    text_embeds = lm.get_input_embeddings()(prompt_tokens)
    inputs_embeds = torch.cat([projected_features, text_embeds], dim=1)
    outputs = lm(inputs_embeds=inputs_embeds)
    assert image_features.shape == (1, 16, 32) and outputs.last_hidden_state.shape == inputs_embeds.shape
    torch.testing.assert_close(project_sequence_embed(image_features, adapter), projected_features)
    image_id = model.config.image_token_index
    with_place = torch.cat([torch.tensor([[image_id]]), prompt_tokens], 1)
    merged = merge_image_tokens(
        lm.get_input_embeddings()(with_place), with_place, projected_features, image_token_id=image_id
    )
    torch.testing.assert_close(merged.embeds, inputs_embeds)


@pytest.mark.parametrize("side, tokens", [(224, 256), (336, 576)])
def test_tokens_and_widths(side, tokens):
    """256 tokens are LLaVA 1's; 1.5 has 336 pixels. Vicuna-7B is 4096 wide, Vicuna-13B 5120."""
    tokenizer = build_tokenizer(["a star"], 300)
    _, processor = build_llava(tokenizer, small_vision(side, 14, 32, 1), small_language(tokenizer, 32, 1))
    assert len(encode_images(processor, [[picture(0)]]).runs[0]) == tokens
    with torch.device("meta"):
        first, _, second = build_projector("mlp2x_gelu", 1024, 4096)
    assert (first.out_features, second.in_features, second.out_features) == (4096, 4096, 4096)


def test_evaluation_of_a_cloned_data_set(llava_folders, tmp_path, monkeypatch):
    """AniPersonaCaps at the root, `eval` as the file of the evaluation, the four metrics."""
    create_sample_dataset(tmp_path / "AniPersonaCaps", 4, layout="persona", size=32)
    monkeypatch.setattr("common.cli.paths.ROOT", tmp_path)
    (tmp_path / "llava").mkdir()
    monkeypatch.chdir(tmp_path / "llava")
    settings = flags(
        model_id=llava_folders["llava"],
        data="AniPersonaCaps",
        sentence_encoder=write_sentence_encoder(tmp_path / "sentences"),
        limit=4,
    )
    monkeypatch.setattr(sys, "argv", ["eval.py", *settings, *QUICK])
    monkeypatch.setattr(sys, "path", sys.path[:])  # a script replaces its first entry
    runpy.run_path(str(ROOT / "llava" / "eval.py"), run_name="__main__")
    found = json.loads((tmp_path / "llava" / "results" / "llava" / "summary.json").read_text())
    assert found.keys() >= {"traits", "bleu", "rouge1", "rouge2", "rougeL", "cosine", "groups"}
    assert all("accuracy" in trait for trait in found["traits"].values())
    train.main([*llava_flags(llava_folders["llava"], "AniPersonaCaps", tmp_path / "run"), "--max_steps", "1"])
    assert LlavaAnalyzer(str(tmp_path / "run"), device="cpu").model.peft_config  # the adapter in place of a model
    row = {
        "image": "0.png",
        "text": "a star",
        "keywords": ["star", "beach"],
        "reference": "a red star",
        "group": "drawn",
    }
    write_pictures(tmp_path, 1)
    (tmp_path / "samples.jsonl").write_text(json.dumps(row))
    monkeypatch.chdir(tmp_path)
    found = evaluate.main(flags(model_id=llava_folders["llava"], data="samples.jsonl", num_negatives=0) + QUICK)
    assert {f"recall_at_{k}" for k in (1, 5, 10)} <= found.keys() and list(found["groups"]) == ["drawn"]


def test_flags_of_the_original_repository():
    """Of finetune_lora.sh and run_llava.py; what the model's own files decide is said."""
    words = (
        "--model_name_or_path m --data_path d --image_folder i --mm_projector_lr 1e-5 --lora_r 8 --bits 4 --bf16 True"
    )
    values = config.read_values(f"{words} --model_max_length 64 --evaluation_strategy no --warmup_ratio 0.1".split())
    assert (values["model_id"], values["data"], values["image_dir"]) == ("m", "d", "i")
    assert (values["projector_learning_rate"], values["lora_rank"], values["max_length"]) == (1e-5, 8, 64)
    settings = read_settings(config, "--model-path m --image-file i --load_4bit --num_beams 2".split())
    assert (settings.model_id, settings.image, settings.bits, settings.num_beams) == ("m", "i", 4, 2)
    with pytest.raises(ValueError, match="own config.json"):
        config.read_values(["--mm_projector_type", "mlp2x_gelu"])


def test_weights_and_processors_of_other_versions(llava_folders, tmp_path):
    """Folders of older transformers open; weights in the layout of the original repository are refused, not random."""
    older, original = tmp_path / "older", tmp_path / "original"
    for folder in (older, original):
        shutil.copytree(llava_folders["llava"], folder)
    processor = json.loads((older / "processor_config.json").read_text())
    for name in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        processor.pop(name)
    (older / "processor_config.json").write_text(json.dumps(processor))
    results = [
        LlavaAnalyzer(
            str(folder), device="cpu", scoring=ScoringConfig(description_tokens=4, analysis_tokens=4)
        ).analyze_image(picture(0), "a star")["response"]
        for folder in (older, llava_folders["llava"])
    ]
    assert results[0] == results[1]
    weights = load_file(original / "model.safetensors")
    renamed = {name.replace("multi_modal_projector", "mm_projector"): tensor for name, tensor in weights.items()}
    save_file(renamed, original / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="multi_modal_projector.*llava-hf"):
        load_image_text_model(str(original), device="cpu")
    (original / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="llava-hf"):
        load_image_text_model(str(original), device="cpu")
