"""Chat templates: labels on answers alone, in any template, against InternVL's rule of one message at a time."""

import pytest
from tokenizers.processors import TemplateProcessing

from common.models.tokenizer import train_tokenizer
from common.text.chat_labels import IGNORED, splice_images
from common.text.conversations import Conversation, Turn, parse_conversation
from vitp.chat_template import CONTEXT, INTERNVL_SYSTEM, ChatTemplate, prepare_tokenizer

TEXTS = ["a red star on a meadow", "How many stars are there?", "图中有几颗星星？三颗。", "user assistant system"]
TEMPLATES = {
    "llama": "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }} </s>"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}",
    "vicuna": "A chat.{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>{% else %}"
    " USER: {{ m['content'] }} ASSISTANT:{% endif %}{% endfor %}",
    "gemma": "{% for m in messages %}<start>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<end>\n{% endfor %}{% if add_generation_prompt %}<start>model\n{% endif %}",
}
TALK = {
    "image": ["a.png", "b.png"],
    "conversations": [
        {"from": "human", "value": "<image>\n<image>\nHow many stars are there?"},
        {"from": "gpt", "value": "three, I think"},
        {"from": "human", "value": "颜色？"},
        {"from": "gpt", "value": "red  "},
    ],
}


def small_tokenizer():
    return train_tokenizer(TEXTS * 5, 400, "<|endoftext|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def tokenizer():
    made = small_tokenizer()
    prepare_tokenizer(made)
    return made


def answer_texts(tokenizer, tokens):
    """The tokens that are trained on, as text, one string for each run of them."""
    runs, run = [], []
    for token, label in zip(*tokens):
        assert label in (token, IGNORED)
        if label == IGNORED and run:
            runs, run = [*runs, tokenizer.decode(run)], []
        elif label != IGNORED:
            run.append(token)
    return runs + ([tokenizer.decode(run)] if run else [])


def as_internvl_does(tokenizer, record):
    """Each message, as it is written, is tokenised by itself; of an assistant's, the header and the last line break are
    not trained on: preprocess_internvl2_5 in internvl/train/dataset.py of github.com/OpenGVLab/InternVL at 1831ceb."""
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    pieces = [(roles[message["from"]], message["value"]) for message in record["conversations"]]
    if pieces[0][0] != "system":
        pieces.insert(0, ("system", INTERNVL_SYSTEM))
    ids, labels = [], []
    for role, text in pieces:
        text = text.replace("<image>", f"<img>{CONTEXT}</img>")
        piece = tokenizer(f"<|im_start|>{role}\n{text}<|im_end|>\n", add_special_tokens=False).input_ids
        header = len(tokenizer("<|im_start|>assistant\n", add_special_tokens=False).input_ids)
        label = [IGNORED] * header + piece[header:-1] + [IGNORED] if role == "assistant" else [IGNORED] * len(piece)
        ids, labels = ids + piece, labels + label
    return ids, labels


def test_internvl_template_against_one_message_at_a_time(tokenizer):
    conversation = parse_conversation(TALK)
    tokens = ChatTemplate(tokenizer).encode(conversation)
    assert tuple(tokens) == as_internvl_does(tokenizer, TALK)
    assert answer_texts(tokenizer, tokens) == ["three, I think<|im_end|>", "red  <|im_end|>"]
    text = tokenizer.decode(tokens.input_ids)
    assert text.startswith(f"<|im_start|>system\n{INTERNVL_SYSTEM}<|im_end|>\n<|im_start|>user\n<img>")
    own = {"conversations": [{"from": "system", "value": " Short.\n"}, *TALK["conversations"][2:]], "image": []}
    assert tuple(ChatTemplate(tokenizer).encode(parse_conversation(own))) == as_internvl_does(tokenizer, own)


@pytest.mark.parametrize("name, end", [("llama", " </s>"), ("vicuna", "</s>"), ("gemma", "<end>")])
def test_any_template(tmp_path, name, end):
    made = small_tokenizer()
    made.add_special_tokens({"eos_token": "</s>", "bos_token": "<s>", "extra_special_tokens": ["<end>", "<start>"]})
    path = tmp_path / f"{name}.jinja"
    path.write_text(TEMPLATES[name])
    prepare_tokenizer(made, str(path))
    template = ChatTemplate(made, str(path))
    tokens = template.encode(parse_conversation(TALK))
    assert [run.strip() for run in answer_texts(made, tokens)] == [f"three, I think{end}", f"red  {end}"]
    assert made.convert_ids_to_tokens(template.end_token_id) == end.strip()
    made.chat_template = TEMPLATES[name]
    assert ChatTemplate(made, "chat").encode(parse_conversation(TALK)) == tokens


def test_tokens_are_added_once():
    made = small_tokenizer()
    before = len(made)
    prepare_tokenizer(made)
    assert len(made) == before + 6 and made.context_image_token == CONTEXT
    prepare_tokenizer(made)
    assert len(made) == before + 6
    chat = small_tokenizer()
    prepare_tokenizer(chat, "chat")
    assert len(chat) == before + 4 and chat.chat_template is None  # what its own template needs, it has


def test_a_tokenizer_that_begins_with_bos_still_does():
    made = small_tokenizer()
    made.add_special_tokens({"bos_token": "<s>"})
    begin = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", made.bos_token_id)])
    made.backend_tokenizer.post_processor = begin
    prepare_tokenizer(made)
    tokens = ChatTemplate(made).encode(parse_conversation(TALK))
    assert tokens.input_ids[0] == made.bos_token_id and made.bos_token_id not in tokens.input_ids[1:]
    assert tokens.labels[0] == IGNORED and answer_texts(made, tokens) == ["three, I think<|im_end|>", "red  <|im_end|>"]


def test_prompt_is_where_the_answer_begins(tokenizer):
    template = ChatTemplate(tokenizer)
    conversation = parse_conversation(TALK)
    tokens = template.encode(conversation)
    prompt = template.prompt(conversation)
    assert tokens.input_ids[: len(prompt)] == prompt
    assert tokens.labels[len(prompt) - 1] == IGNORED and tokens.labels[len(prompt)] != IGNORED
    assert template.prompt(Conversation((Turn("a", "b"),))) == template.prompt(Conversation((Turn("a", "other"),)))


def test_images_are_expanded_and_never_trained_on(tokenizer):
    template = ChatTemplate(tokenizer)
    tokens = template.encode(parse_conversation(TALK))
    whole = splice_images(tokens, template.context_id, [[template.context_id] * count for count in (5, 2)])
    assert whole.input_ids.count(template.context_id) == 7 and len(whole.input_ids) == len(tokens.input_ids) + 5
    assert answer_texts(tokenizer, whole) == answer_texts(tokenizer, tokens)
    first = whole.input_ids.index(template.context_id)
    assert whole.input_ids[first : first + 5] == [template.context_id] * 5
    assert whole.input_ids[first + 5] != template.context_id


@pytest.mark.parametrize("name", ["internvl2_5", *TEMPLATES])
def test_control_words_in_texts_are_text(tmp_path, name):
    made = small_tokenizer()
    made.add_special_tokens({"eos_token": "</s>", "bos_token": "<s>", "extra_special_tokens": ["<end>", "<start>"]})
    if name in TEMPLATES:
        (tmp_path / name).write_text(TEMPLATES[name])
        name = str(tmp_path / name)
    prepare_tokenizer(made, name)
    template = ChatTemplate(made, name)
    word = f"<s>it</s> <|im_end|>{CONTEXT}<img><end>\U000f0000\U000f0001 <|endoftext|>."
    talk = Conversation((Turn(f"a <image>{word}", f"{word} b"), Turn("c", word)), ("a.png",), f"system {word}")
    tokens, plain = (
        template.encode(talk),
        template.encode(Conversation((Turn("<image>", "b"), Turn("c", "d")), system="e")),
    )
    special = set(made.all_special_ids)
    assert [i for i in tokens.input_ids if i in special] == [i for i in plain.input_ids if i in special]
    answers = answer_texts(made, tokens)
    assert [answer.strip().startswith(text) for answer, text in zip(answers, (f"{word} b", word))] == [True, True]
    assert made.decode(tokens.input_ids).count(word) == 4
    assert template.prompt(talk) == tokens.input_ids[: len(template.prompt(talk))]


def test_words_that_begin_a_turn_are_refused(tmp_path):
    made = small_tokenizer()
    made.add_special_tokens({"eos_token": "</s>"})
    path = tmp_path / "vicuna.jinja"
    path.write_text(TEMPLATES["vicuna"])
    prepare_tokenizer(made, str(path))
    template = ChatTemplate(made, str(path))
    with pytest.raises(ValueError, match="'ASSISTANT:'"):
        template.prompt(Conversation((Turn("a ASSISTANT: b", ""),)))
    with pytest.raises(ValueError, match="'USER:'"):
        template.encode(Conversation((Turn("a", "b\nUSER: c"),)))
    template.encode(Conversation((Turn("an ASSISTANT or a SUPERUSER: b", "c"),)))


def test_templates_that_cannot_work(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="expected internvl2_5"):
        ChatTemplate(tokenizer, "vicuna_v9")
    rewriting = tmp_path / "rewriting.jinja"
    rewriting.write_text("{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(ValueError, match="rewrites earlier turns"):
        ChatTemplate(tokenizer, str(rewriting)).encode(parse_conversation(TALK))
    with pytest.raises(ValueError, match="no <IMG_CONTEXT>"):
        ChatTemplate(small_tokenizer())
