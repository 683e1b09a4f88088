"""Control words in questions, answers and captions: texts of words and tokens through the tokenising of vitp, llava,
blip2_gated and clip, with tokenizers of the kinds of GPT-2, Llama and T5."""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from blip2_gated.backbone import make_tokenizer
from blip2_gated.prompts import PromptEncoder
from clip.tokenizer import CLIPTokenizer, HuggingFaceTokenizer
from common.models.tokenizer import train_tokenizer
from common.text.chat_labels import IGNORED
from common.text.conversations import IMAGE, Conversation, Turn
from llava.dataset import tokenize
from llava.model import CHAT_TEMPLATE
from llava.tokens import ChatFormatter
from vitp.chat_template import ChatTemplate, prepare_tokenizer

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", IMAGE, "<|im_start|>", "<|im_end|>", "<|endoftext|>")
WORDS = (
    *(*SPECIAL, "<img>", "</img>", "<IMG_CONTEXT>", "<start_of_text>", "<end_of_text>", "[INST]", "[/INST]", "USER:"),
    *("ASSISTANT:", "<", ">", "|", " ", " a cat", "<|im_", "end|>", "\U000f0000", "\U000f0001", "图", "🙂", "s", "/"),
    *("x\n", "&lt;/s&gt;", "＜/s＞"),
)
CHATML = (  # text and images in the order of the parts
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endif %}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>{% else %}"
    "[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)


def trial(random: Random, folder: Path) -> str:
    return random.choice((_vitp, _llava, _blip2, _clip))(random)


def _vitp(random: Random) -> str:
    template = random.choice(_templates())
    question, answer, system = (_text(random).replace(IMAGE, "") for _ in range(3))
    talk = Conversation((Turn(f"{IMAGE}\n{question}", answer), Turn(question, "end")), ("a.png",), system)
    try:
        tokens, prompt = template.encode(talk), template.prompt(talk)
    except ValueError as error:
        assert template.control_words.turn_words and "begins a turn" in str(error), error
        return "skipped"
    assert tokens.input_ids[: len(prompt)] == prompt and tokens.input_ids.count(template.context_id) == 1
    _check([label for label in tokens.labels if label != IGNORED], template.tokenizer, 2, f"{answer}end")
    return "read"


def _llava(random: Random) -> str:
    formatter, question = random.choice(_formatters()), f"{_text(random)} ?"
    answer, system = (_text(random).replace(IMAGE, "") for _ in range(2))
    images = tuple(f"{number}.png" for number in range(question.count(IMAGE)))
    tokenizer = formatter.processor.tokenizer
    end = "<|im_end|>" if formatter.keeps_order else "</s>"
    try:
        (ids, labels), _ = tokenize(Conversation((Turn(question, answer),), images, system), formatter, [end])
    except ValueError as error:
        assert "begins a turn" in str(error) or "within a control word" in str(error), error
        return "skipped"
    assert ids.count(tokenizer.convert_tokens_to_ids(IMAGE)) == len(images)
    _check([label for label in labels if label != IGNORED], tokenizer, 1, answer)
    _check([token for token, label in zip(ids, labels) if label == IGNORED], tokenizer, None, system, question)
    return "read"


def _blip2(random: Random) -> str:
    prompts, question, answer = _prompts(), _text(random), _text(random)
    try:
        encoded = prompts.encode(question, answer)
    except ValueError as error:
        assert "line break" in str(error) and "\n" in answer
        return "skipped"
    _check(encoded.question, prompts.tokenizer, 0, question)
    _check(encoded.answer[:-1], prompts.tokenizer, 0, answer)
    return "read"


def _clip(random: Random) -> str:
    tokenizer, text = random.choice(_clip_tokenizers()), _text(random)
    ((ids,), _) = tokenizer.encode([text])
    if isinstance(tokenizer, CLIPTokenizer):
        assert max(ids[1:-1]) < ids[0] < ids[-1], (text, ids)
    else:
        _check(ids, tokenizer.tokenizer, 1, text)
    return "read"


def _text(random: Random) -> str:
    return f"a{''.join(random.choices(WORDS, k=random.randint(1, 6)))}b"


def _check(ids: list[int], tokenizer: Any, count: int | None, *texts: str) -> None:
    """`ids` hold `count` special tokens, and the texts, spaces aside."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert count in (None, sum(token in special for token in ids)), (texts, tokenizer.decode(ids))
    read = "".join(tokenizer.decode([token for token in ids if token not in special]).split())
    for text in texts:
        written = "".join(text.replace(IMAGE, "" if count is None else IMAGE).split())
        assert written == read if count is not None else written in read, (text, tokenizer.decode(ids))


@cache
def _byte_level() -> Tokenizer:
    return train_tokenizer(WORDS, 700, "<pad>", "</s>", "<s>", SPECIAL[3:]).backend_tokenizer


def _pieces() -> list[str]:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    return [*SPECIAL, *bytes_, "▁", *sorted(set("".join(WORDS)) - {" ", "\n", "🙂", "\U000f0000"})]


@cache
def _llama() -> Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(_pieces())}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _finish(tokenizer)


@cache
def _unigram() -> Tokenizer:
    pieces = [(piece, 0.0 if piece in SPECIAL else -5.0) for piece in _pieces()]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return _finish(tokenizer)


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _of(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_str()),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": IMAGE,
            "start": "<|im_start|>",
            "end": "<|im_end|>",
            "of": "<|endoftext|>",
        },
    )


@cache
def _templates() -> list[ChatTemplate]:
    made = []
    for source in (_byte_level(), _llama(), _unigram()):
        for template in (None, INST):
            tokenizer = _of(source)
            tokenizer.chat_template = template
            style = "chat" if template else "internvl2_5"
            prepare_tokenizer(tokenizer, style)
            made.append(ChatTemplate(tokenizer, style))
    return made


@cache
def _formatters() -> list[ChatFormatter]:
    options = {"patch_size": 8, "vision_feature_select_strategy": "default"}
    return [
        ChatFormatter(LlavaProcessor(CLIPImageProcessor(), _of(source), chat_template=template, **options))
        for source in (_byte_level(), _llama(), _unigram())
        for template in (CHAT_TEMPLATE, CHATML)
    ]


@cache
def _prompts() -> PromptEncoder:
    tokenizer = make_tokenizer(list(WORDS), 700)
    return PromptEncoder(tokenizer, tokenizer.convert_tokens_to_ids(IMAGE), 4, max_tokens=200)


@cache
def _clip_tokenizers() -> list[CLIPTokenizer | HuggingFaceTokenizer]:
    made: list[CLIPTokenizer | HuggingFaceTokenizer] = [CLIPTokenizer()]
    for source in (_byte_level(), _unigram()):
        tokenizer = Tokenizer.from_str(source.to_str())
        ends = [("</s>", tokenizer.token_to_id("</s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=ends)
        made.append(HuggingFaceTokenizer(tokenizer.to_str(), 100, 0))
    return made
