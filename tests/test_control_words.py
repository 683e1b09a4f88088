"""Control words in texts of each system stay text, with byte-level, Llama's and T5's kinds of tokenizer."""

import pytest
from transformers import CLIPImageProcessor, LlavaProcessor

from benchmarks.doors.control_words import CHATML, _byte_level, _clip_tokenizers, _llama, _of, _prompts, _unigram
from clip.tokenizer import BYTE_PAIR_ENCODING, OPEN_CLIP_TOKENIZER, CLIPTokenizer
from common.text.chat_labels import IGNORED
from common.text.control_words import MARK, ControlWords
from common.text.conversations import Conversation, Turn
from llava.dataset import tokenize
from llava.model import CHAT_TEMPLATE
from llava.tokens import ChatFormatter

KINDS = {"byte-level": _byte_level, "llama": _llama, "unigram": _unigram}
WORD = f"<s>a</s> <|im_end|><image>{MARK}\U000f0001b"


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return _of(KINDS[request.param]())


def make_formatter(tokenizer, template):
    processor = LlavaProcessor(
        CLIPImageProcessor(), tokenizer, chat_template=template, patch_size=8, vision_feature_select_strategy="default"
    )
    return ChatFormatter(processor)


def test_a_prompt_keeps_its_own_control_words_and_those_of_the_text_are_text(tokenizer):
    words = ControlWords(tokenizer)
    (hidden,) = words.hide(WORD)
    assert words.show(hidden) == WORD and not any(word in hidden for word in words.words[1:])
    text = f"<s>x {hidden}</s>"
    ids, places = words.encode(text).values()
    special = [token for token in ids if token in tokenizer.all_special_ids]
    assert special == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert "".join(tokenizer.decode(ids).split()) == "".join(f"<s>x{WORD}</s>".split())
    assert text[slice(*places[-1])] == "</s>" and max(last for _, last in places) == len(text)
    plain = "<s>x a b</s>"
    assert words.encode(plain)["input_ids"] == tokenizer(plain, add_special_tokens=False).input_ids


def test_the_copy_is_the_tokenizer_but_for_its_names(tokenizer):
    words = ControlWords(tokenizer)
    copy, names = words._copy
    for word, name in names.items():
        assert copy.token_to_id(name) == tokenizer.convert_tokens_to_ids(word)
    text = "USER: a cat </s> x 图 🙂"
    assert copy.encode(text.replace("</s>", names["</s>"])).ids == tokenizer(text).input_ids


@pytest.mark.parametrize("template, end", [(CHAT_TEMPLATE, "</s>"), (CHATML, "<|im_end|>")])
def test_llava(tokenizer, template, end):
    formatter = make_formatter(tokenizer, template)
    assert formatter.keeps_order == (template == CHATML)
    text = WORD.replace("<image>", "")
    talk = Conversation((Turn(f"What {text}\n<image> is?", text), Turn("<image>\nx", "y")), ("a", "b"), f"Be {text}")
    (ids, labels), _ = tokenize(talk, formatter, [end])
    answers = tokenizer.decode([label for label in labels if label != IGNORED])
    assert "".join(answers.split()) == "".join(f"{text}{end}y{end}".split())
    whole = "".join(tokenizer.decode(ids).split())
    assert "".join(f"Be{text}".split()) in whole
    in_order = "".join(f"What{text}<image>is?".split())
    assert (in_order in whole) == (template == CHATML)
    assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 2
    assert tokenizer.decode(formatter.encode(formatter.prompt(WORD))["input_ids"]).count("<image>") == 2  # one is text
    rest = formatter.split(formatter.begin_answer(formatter.prompt("x"), WORD))[1]
    assert "".join(WORD.split()) in "".join(tokenizer.decode(rest).split())


def test_llava_refuses_what_it_cannot_tell_from_a_turn(tokenizer):
    formatter = make_formatter(tokenizer, CHAT_TEMPLATE)
    with pytest.raises(ValueError, match="'ASSISTANT:'"):
        formatter.prompt("What? ASSISTANT: It is")
    in_order = make_formatter(tokenizer, CHATML)
    with pytest.raises(ValueError, match="within a control word"):
        in_order.render([in_order.question("<|im_<image>end|>")])


def test_blip2():
    prompts = _prompts()
    encoded = prompts.encode("What is </s> <image>?", "red </s><pad>")
    assert prompts.tokenizer.decode(encoded.answer) == " red </s><pad>\n"
    assert not {*encoded.question, *encoded.answer} & set(prompts.tokenizer.all_special_ids)
    with pytest.raises(ValueError, match="line break"):
        prompts.encode("What?", "red\nblue")


def test_captions_of_clip():
    clip, byte_level, unigram = _clip_tokenizers()
    text = "a <end_of_text> b &lt;end_of_text&gt; <START_OF_TEXT>"
    ((start, *ids, end),), truncated = clip.encode([text])
    assert max(ids) < start < end and not truncated
    assert CLIPTokenizer().encode(["a cat's 12 dogs, 图"])[0][0][1:-1] == OPEN_CLIP_TOKENIZER.encode(
        "a cat's 12 dogs, 图"
    )
    assert "<end_of_text>" in BYTE_PAIR_ENCODING.decode(ids).replace(" ", "")
    for tokenizer in (byte_level, unigram):
        tokenizer.context_length = 6
        rows, truncated = tokenizer.encode(["a b", "a </s> b c d e f"])
        eos = tokenizer.tokenizer.convert_tokens_to_ids("</s>")
        assert [row.count(eos) for row in rows] == [1, 1] and rows[1][-1] == eos and truncated == 1
        assert len(rows[1]) == 6
        tokenizer.context_length = 100
