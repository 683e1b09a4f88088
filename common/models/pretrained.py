"""Models of transformers with their weights: complete or refused, and generating by our settings alone.

class, name or folder -> model, each of whose tensors is in the files, and which uses each tensor of the files
"""

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import GenerationMixin, PreTrainedModel

from common.models.checkpoint_file import check_finite, first_line

warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # which peft asks for
LOAD_ERRORS = (
    OSError,
    ValueError,
    ImportError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    SafetensorError,
    StrictDataclassError,  # a value of a wrong type in config.json
)
CONSTANTS = (
    r"(^|\.)position_ids$",
    r"\.rotary_emb\.inv_freq$",
    r"\.attn\.(masked_)?bias$",
)  # in older files, computed now
# Parts of a generation_config.json that set how tokens are searched and returned, which callers choose. What the
# publisher says about tokens stays: eos_token_id, stop_strings, repetition_penalty, suppress_tokens and their like.
CALLERS_CHOICE: dict[str, Any] = {
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "cache_implementation": None,
    "max_cache_len": None,
    "use_cache": True,
    "num_return_sequences": None,
    "num_beams": None,
    "num_beam_groups": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "prompt_lookup_num_tokens": None,
    "max_length": None,
}
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def load_pretrained(
    model_class: Any,
    source: str,
    *,
    label: str = "",
    remedy: str = "",
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    **options: Any,
) -> PreTrainedModel:
    """model_class.from_pretrained(source, **options), which alone would leave missing tensors random.

    missing, unexpected: patterns of names that the caller needs neither from the files nor in the model, besides those
    that the class itself lists. label, remedy: begin and end of the ValueError for what is not a whole model.
    """
    label, remedy = label or source, f"; {remedy}" if remedy else ""
    try:
        with _without_load_report():
            model, loading = model_class.from_pretrained(
                source, output_loading_info=True, trust_remote_code=False, **options
            )
    except LOAD_ERRORS as error:
        raise ValueError(f"{label}: cannot be loaded ({first_line(error)}){remedy}") from error
    # Quantised files hold statistics under names of their own, and the quantiser itself checks them.
    unknown = (
        [] if getattr(model, "is_quantized", False) else _others(loading["unexpected_keys"], (*CONSTANTS, *unexpected))
    )
    for names, problem in (
        (_others(loading["missing_keys"], missing), "of the model's tensors are missing in its weights"),
        (unknown, f"of its tensors have no place in {type(model).__name__}"),
    ):
        if names:
            raise ValueError(f"{label}: {len(names)} {problem}, the first {names[0]}{remedy}")
    check_finite(model.state_dict(), label)
    generate_by_our_settings(model)
    return model


def generate_by_our_settings(model: PreTrainedModel) -> None:
    """Reset CALLERS_CHOICE in a model's generation config, and in those of its parts."""
    for part in model.modules():
        if isinstance(part, GenerationMixin) and part.generation_config is not None:
            part.generation_config.update(**CALLERS_CHOICE)
            if not part.generation_config.do_sample:  # without effect then, but a changed config with them is not saved
                part.generation_config.update(**dict.fromkeys(SAMPLING))


def _others(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted(name for name in names if not any(re.search(pattern, name) for pattern in patterns))


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Without transformers' table of differing tensors: load_pretrained says in a line what matters of it."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
