"""The analyzer that the settings choose: a local model, or a server."""

from argparse import Namespace

from llava.analysis import Analyzer
from llava.analyzer import LlavaAnalyzer
from llava.sampling import seed_from
from llava.scoring_config import ScoringConfig

INPUTS = ("model_id", "adapter", "image", "input", "data")  # settings that are paths, here or at the root


def open_analyzer(settings: Namespace) -> Analyzer:
    scoring = ScoringConfig.from_settings(settings)
    if settings.server_url:
        if settings.adapter:
            raise ValueError("--adapter: not with --server_url; start the server itself with the adapter")
        if scoring.num_beams > 1:
            raise ValueError("--num_beams: not with --server_url; servers decode greedily or by sampling")
        from llava.server import ServerAnalyzer  # with the openai package, half a second

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


def settings_hash(settings: Namespace, *weights: str | None) -> str:
    """Differs wherever results may differ: by model, adapter, prompts or generation settings, and weights if given."""
    model = (settings.model_id, settings.adapter, settings.bits, settings.system_prompt, settings.server_url)
    return f"{seed_from(*model, *weights, sorted(vars(ScoringConfig.from_settings(settings)).items(), key=str)):014x}"
