"""Settings to the analyzer they ask for: a model on this machine, or a server."""

from argparse import Namespace
from dataclasses import fields

from common.cli.settings import unknown_name
from llava.analyzer import LlavaAnalyzer
from llava.config import PROMPTS
from llava.sampling import seed_of
from llava.scoring_config import ScoringConfig
from llava.server import ServerAnalyzer


def open_analyzer(settings: Namespace) -> LlavaAnalyzer | ServerAnalyzer:
    scoring = read_scoring_config(settings)
    if settings.server_url:
        if settings.adapter:
            raise ValueError("--adapter: a server has to be started with it; leave it out beside --server_url")
        return ServerAnalyzer(
            settings.server_url, settings.model_id, scoring, settings.system_prompt, settings.server_requests
        )
    return LlavaAnalyzer(
        settings.model_id,
        settings.adapter,
        scoring,
        settings.system_prompt,
        settings.batch_size,
        device=settings.device,
        precision=settings.precision,
        attention=settings.attention,
        bits=settings.bits,
    )


def read_scoring_config(settings: Namespace) -> ScoringConfig:
    if settings.language not in PROMPTS:
        raise ValueError(unknown_name(settings.language, list(PROMPTS), "--language"))
    named = {one.name for one in fields(ScoringConfig)} - {"prompts"}
    return ScoringConfig(PROMPTS[settings.language], **{name: getattr(settings, name) for name in named})


def settings_hash(settings: Namespace) -> str:
    """A short word that differs wherever answers may differ: by model, adapter, prompts or generation settings."""
    facts = (settings.model_id, settings.adapter, settings.bits, settings.system_prompt, settings.server_url)
    return f"{seed_of(*facts, sorted(vars(read_scoring_config(settings)).items(), key=str)):014x}"
