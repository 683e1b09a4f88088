"""What tiny models of many families are built from: sizes, tokenizers, the shapes of chat templates."""

from collections.abc import Callable
from typing import Any

from common.models.tokenizer import train_tokenizer
from tiny.llava import WORDS

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
GRID = {
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 1024},
}
SQUARE = {"height": 32, "width": 32}
CHATML = {"start": "<|im_start|>{role}\n", "end": "<|im_end|>\n"}
COHERE = {
    "start": "<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>",
    "end": "<|END_OF_TURN_TOKEN|>",
    "user": "USER",
    "assistant": "CHATBOT",
    "bos": "<BOS_TOKEN>",
}
Family = tuple[Any, Any]  # config, processor


def template(image: str, start: str, end: str, bos: str = "", user: str = "user", assistant: str = "assistant") -> str:
    """A chat template in which images stand where the message has them."""
    roles = {"system": "system", "user": user, "assistant": assistant}
    opening = repr(start).replace("{role}", f"' + {roles}[message['role']] + '")
    prompt = repr(start.replace("{role}", assistant).rstrip(" "))
    return (
        f"{{{{ {bos!r} }}}}{{% for message in messages %}}{{{{ {opening} }}}}"
        f"{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{{{{ {image!r} }}}}"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
        f"{{{{ {end!r} }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {prompt} }}}}{{% endif %}}"
    )


def tokenizer(eos: str, words: list[str], bos: str | None = None, **names: str) -> Any:
    """names: special tokens by the names that a processor reads them by, image_token and its like."""
    extra = names | {f"word_{number}": word for number, word in enumerate(words)}
    return train_tokenizer([*WORDS, "\n\n\n"], 600, "<pad>", eos, bos, extra)


def text_config(kind: Callable[..., Any], tokens: Any, **values: Any) -> Any:
    ids = {name: getattr(tokens, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return kind(**TEXT | {"vocab_size": len(tokens), "num_key_value_heads": 2, **ids} | values)
