"""Blip2OPTGated from plain values, and from what checkpoint.py wrote."""

from pathlib import Path
from typing import Any, Literal, Required, Self

from typing_extensions import TypedDict

from blip2_gated.backbone import build_blip2, read_blip2, tokenizer_from_json
from blip2_gated.style_vocabulary import StyleVocabulary
from common.models.build_arguments import building
from common.models.checkpoint_file import model_content, weights_digest
from common.models.model_folder import is_hub_name, load_model, write_model_folder
from common.text.files import check_file
from common.text.schema import check_type

KIND = "blip2_gated"


class BLIP2(TypedDict, total=False):
    """Either source, or config and tokenizer."""

    source: str
    config: dict[str, Any]
    tokenizer: str  # JSON


class Model(TypedDict, total=False):
    efficientnet: Required[dict[str, Any] | None]
    gating: dict[str, Any]
    mapper: dict[str, Any]
    lora: dict[str, Any] | None
    trained: str
    template: str
    max_tokens: int


class Build(TypedDict):
    """What build_arguments makes."""

    blip2: BLIP2
    frozen_dtype: Literal["auto", "fp32", "bf16"]
    labels: list[str]
    spellings: list[str]
    model: Model


class PretrainedMixin:
    """The ways in and out of Blip2OPTGated."""

    build: dict[str, Any]

    @classmethod
    def from_build(cls, build: dict[str, Any]) -> Self:
        """The model of checkpoint.build_arguments (a Build), with untrained gates, mapper and style head."""
        if "config" in build["blip2"]:
            tokenizer, blip2 = tokenizer_from_json(build["blip2"]["tokenizer"]), build_blip2(build["blip2"]["config"])
        else:
            blip2, tokenizer = read_blip2(build["blip2"]["source"])
        has_source = {
            "blip2": "source" in build["blip2"],
            "efficientnet": (build["model"]["efficientnet"] or {}).get("pretrained"),
        }
        model = cls(
            blip2,
            tokenizer,
            StyleVocabulary(tokenizer, build["labels"], build["spellings"]),
            **build["model"],
            external=[part for part, source in has_source.items() if source],
        )
        blip2.qformer.float()
        blip2.language_projection.float()
        blip2.query_tokens.data = blip2.query_tokens.data.float()
        model.build = build
        return model

    @classmethod
    def open(cls, path: str | Path, blip2: str = "", efficientnet: str = "") -> tuple[Self, dict[str, Any]]:
        """A file of save_gated or save_full, a folder of save_pretrained or tools/push_to_hub.py, or a name on the Hub
        -> the model in eval(), the file's content without weights.

        blip2, efficientnet: locations of their weights, if not as in training. Other weights are an error.
        """
        if not is_hub_name(path) and not Path(path).is_dir():
            check_file(path, "train.py writes checkpoints/blip2_gated/best.pt")
        content = load_model(path, KIND)
        build: Any = check_type(content["build"], Build, f"{path}: build")
        arguments = build["model"]["efficientnet"] or {}
        if blip2 and "source" in build["blip2"]:
            build["blip2"] = {"source": blip2}
        if efficientnet and arguments:
            arguments["pretrained"] = efficientnet
        weights = content.pop("model_state_dict")
        whole = "config" in build["blip2"] and not arguments.get("pretrained")  # else most weights are in other files
        try:
            with building(path, build, weights if whole else None):
                model = cls.from_build(build)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: needs weights that it does not hold, and {error}; name them with --blip2 and --efficientnet"
            ) from error
        if content.get("fingerprint") and content["fingerprint"] != model.fingerprint:
            raise ValueError(
                f"{path}: was trained with another BLIP-2 or EfficientNet than "
                f"{build['blip2'].get('source', 'its own')} and {arguments.get('pretrained')}; "
                "name those with --blip2 and --efficientnet"
            )
        with building(path, build):
            model.load_state_dict(weights)
        return model.eval(), content

    @classmethod
    def from_pretrained(cls, path: str | Path, **locations: str) -> Self:
        """The model of `open`, alone."""
        return cls.open(path, **locations)[0]

    def save_pretrained(self, folder: str | Path) -> None:
        """config.json and model.safetensors, which hold what a file of save_gated does, for from_pretrained and
        tools/push_to_hub.py."""
        write_model_folder(folder, model_content(self, KIND, dict(self.build), fingerprint=self.fingerprint))

    @property
    def fingerprint(self) -> str:
        """Of the weights that a checkpoint does not hold; '' if it holds all."""
        external = {
            name: tensor
            for name, tensor in [*self.named_parameters(), *self.named_buffers()]
            if name in self.external_weights
        }
        return weights_digest(external, sampled=True) if external else ""
