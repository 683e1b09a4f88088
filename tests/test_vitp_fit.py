"""What fits into a sequence: the tokens of the first turns, cut from those of a whole conversation or made anew."""

import copy
from collections import Counter

import numpy as np
import pytest

from common.images.tiling import Tiling
from common.text.conversations import Conversation, Turn
from vitp.chat_template import INTERNVL_SYSTEM, ChatTemplate, prepare_tokenizer
from vitp.dataset import fit
from vitp.demo import train_tokenizer

TILING = Tiling(28, tokens=4, max_tiles=6)
TEMPLATES = {
    "internvl2_5": None,
    "vicuna": "A chat.{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>{% else %}"
    " USER: {{ m['content'] }} ASSISTANT:{% endif %}{% endfor %}",
    "gemma": "{% for m in messages %}<start>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<end>\n{% endfor %}{% if add_generation_prompt %}<start>model\n{% endif %}",
    "numbered": "{% for m in messages %}<start>{{ loop.index }} of {{ m['role'] }}:{{ m['content'] }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<start>{{ messages | length + 1 }} of assistant:{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_fits_is_the_same_as_when_every_number_of_turns_is_encoded(tmp_path, name):
    """Whether the tokens of the first turns are cut from those of the whole or made anew."""
    tokenizer = train_tokenizer(["What is this? a red star, user system assistant", INTERNVL_SYSTEM] * 5, 800)
    tokenizer.add_special_tokens({"eos_token": "</s>", "extra_special_tokens": ["<start>", "<end>"]})
    if style := TEMPLATES[name]:
        (tmp_path / "chat.jinja").write_text(style)
    style = str(tmp_path / "chat.jinja") if style else name
    prepare_tokenizer(tokenizer, style)
    template, random = ChatTemplate(tokenizer, style), np.random.default_rng(0)
    is_cut = Counter()
    for _ in range(12):
        texts = [" ".join(random.choice(["red", "star", "图", "<end>", "  "], random.integers(1, 9))) for _ in range(8)]
        texts = [f"{text} x" for text in texts[: 2 * random.integers(1, 5)]]
        images = tuple("ab"[: random.integers(0, 3)])
        texts[0] = "<image>" * len(images[:1]) + texts[0]
        texts[-2] = texts[-2] + "<image>" * len(images[1:])
        made = Conversation(tuple(map(Turn, texts[::2], texts[1::2])), images)
        sizes, whole = [(90, 30)] * len(images), template.encode_turns(made)
        is_cut[bool(whole[1])] += len(made.turns) > 1
        if whole[1]:
            for turns, end in enumerate(whole[1], 1):
                assert whole[0].cut(end) == template.encode(made.first(turns))
        for length in range(40, 200, 20):
            results = []
            for encode_turns in (template.encode_turns, lambda talk: (template.encode(talk), [])):
                copied = copy.copy(template)
                copied.encode_turns = encode_turns
                try:
                    results.append(fit(copied, made, sizes, TILING, length))
                except ValueError as error:
                    results.append(str(error))
            assert results[0] == results[1]
    assert is_cut[name != "vicuna"] and not is_cut[name == "vicuna"]
