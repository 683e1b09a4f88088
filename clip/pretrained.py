"""Pretrained weights of CLIP, with what comes with them: activation, preprocessing, whole architecture.

tag of open_clip ('openai', ...), or a file (ours, open_clip's, OpenAI's)   -> Pretrained, for an architecture by name
file or folder of ours, Hugging Face CLIP folder, names of both on the Hub, folder of open_clip, hf-hub:OWNER/NAME
                                                                            -> Checkpoint, which rebuilds its model
"""

import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.factory import HF_HUB_PREFIX, _find_checkpoint_in_dir
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from open_clip.pretrained import download_pretrained_from_hf, is_pretrained_cfg
from timm.layers import resample_abs_pos_embed
from torch import nn

from clip.architectures import complete_architecture, is_architecture, make_architecture, open_clip_name
from clip.huggingface import read_huggingface
from clip.published import (
    HUB_CONFIG,
    OPENAI_CONSTANTS,
    Record,
    file_record,
    hub_record,
    preprocessing_of,
    tag_record,
    usual_record,
)
from clip.schema import Build, HubConfig
from clip.tokenizer import tokenizer_config
from common.models.checkpoint_file import check_finite, first_line, load_every_tensor, read_tensors
from common.models.model_folder import is_model_folder, load_model
from common.models.weight_files import model_folder, unwrap
from common.text.schema import check_type, read_checked

KIND = "clip"
TEMPERATURE = "logit_scale"  # a tensor of every CLIP, behind the prefix of all its names


class Pretrained(NamedTuple):
    """Weights of a network, and what is on record about them."""

    source: Path
    weights: dict[str, torch.Tensor]
    record: Record | None


class Checkpoint(NamedTuple):
    """A whole model: config for CLIPModel(config=...), weights of its `network`, other content of the file."""

    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    metadata: dict[str, Any]


def read_checkpoint(name: str | Path) -> Checkpoint:
    if str(name).startswith(HF_HUB_PREFIX):
        return _read_open_clip(*_download_open_clip(str(name)))
    path = Path(name)
    if (path / HUB_CONFIG).is_file():
        file = _find_checkpoint_in_dir(path)
        if file is None:
            raise FileNotFoundError(f"{path}: {HUB_CONFIG} without weights; is the download complete?")
        return _read_open_clip(Path(file), path)
    name = model_folder(name)
    if not Path(name).is_file() and not is_model_folder(name):
        return Checkpoint(*read_huggingface(name), {})
    if (path.parent / HUB_CONFIG).is_file():
        return _read_open_clip(path, path.parent)
    content = load_model(name, KIND)
    weights = {key.removeprefix("network."): value for key, value in content.pop("model_state_dict").items()}
    return Checkpoint(check_type(content["build"], Build, f"{name}: build")["config"], weights, content)


def _download_open_clip(name: str) -> tuple[Path, None]:
    repository = name.removeprefix(HF_HUB_PREFIX)
    try:
        download_pretrained_from_hf(repository, HUB_CONFIG)
        return Path(download_pretrained_from_hf(repository)), None  # both lie in one folder
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: not available on the Hub as a model of open_clip ({first_line(error)})") from None


def _read_open_clip(file: Path, folder: Path | None) -> Checkpoint:
    """A file next to open_clip_config.json. folder: has the tokenizer, if it has one; None: by its name on the Hub."""
    content = read_checked(file.parent / HUB_CONFIG, HubConfig)
    architecture = complete_architecture(dict(content["model_cfg"]))
    has_tokenizer = folder is not None and any(folder.glob("tokenizer*"))
    config = {
        "architecture": architecture,
        "sigmoid": "init_logit_bias" in architecture,
        "tokenizer": tokenizer_config(architecture["text_cfg"], folder if has_tokenizer else None),
        **hub_record(content).preprocessing,
    }
    return Checkpoint(config, read_file(file).weights, {})


def choose_weights(pretrained: str, model_name: str, is_plain: bool = True) -> str | None:
    """A setting -> what CLIPModel takes. auto: OpenAI's, or the only published ones; none, or empty: random weights.

    is_plain: no tower of the architecture is replaced by another.
    """
    if pretrained != "auto":
        return None if pretrained in ("", "none") else pretrained
    tags = open_clip.list_pretrained_tags_by_model(open_clip_name(model_name)) if is_plain else []
    if len(tags) > 1 and "openai" not in tags:
        raise ValueError(f"--pretrained auto: {model_name} has several weights; choose {', '.join(tags)}, or none")
    return "openai" if "openai" in tags else next(iter(tags), None)


def read_pretrained(model_name: str, pretrained: str) -> Pretrained:
    """pretrained: a file, 'openai' or another tag of open_clip, downloaded once."""
    name = open_clip_name(model_name)
    if Path(pretrained).is_file():
        found = read_file(Path(pretrained))
        return found if found.record else found._replace(record=_assumed_record(found.source, model_name))
    if Path(pretrained).is_dir() or ("/" in pretrained and not is_pretrained_cfg(name, pretrained)):
        raise ValueError(
            f"--pretrained {pretrained}: no such file; a whole model goes to --model_name, by folder or name"
        )
    if not is_pretrained_cfg(name, pretrained):
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ValueError(
            f"--pretrained {pretrained}: no such file, and no weights of that name for {model_name} "
            f"({', '.join(tags) if tags else 'none are published'})"
        )
    try:
        path = open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, pretrained))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"--pretrained {pretrained}: the weights of {model_name} could not be downloaded ({first_line(error)}); "
            "connect once, give a local file, or --pretrained none to train from scratch"
        ) from error
    return read_file(Path(path))._replace(record=tag_record(name, pretrained))


def _assumed_record(path: Path, model_name: str) -> Record:
    """For a file that says nothing, with a line on stderr."""
    name = open_clip_name(model_name)
    record = usual_record(name, make_architecture(model_name))
    other = f"{name}-quickgelu"
    print(
        f"{path}: says nothing of its activation and preprocessing; taking {'Quick' * record.quick_gelu}GELU, "
        + ", ".join(f"{field} {value}" for field, value in record.preprocessing.items())
        + (f" (--model_name {other}: QuickGELU)" if is_architecture(other) and not record.quick_gelu else ""),
        file=sys.stderr,
    )
    return record


def read_file(path: Path) -> Pretrained:
    """Weights under open_clip's names, without wrappers and prefixes of trainers."""
    content = _read(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected named weights")
    weights = {
        name.replace("_orig_mod.", ""): value  # of torch.compile
        for name, value in unwrap(content).items()
        if isinstance(value, torch.Tensor) and isinstance(name, str)
    }
    if any("vision_model." in name for name in weights):
        raise ValueError(f"{path}: is of a Hugging Face CLIP; give its folder, with config.json, as --model_name")
    prefixes = [name.removesuffix(TEMPERATURE) for name in weights if name.endswith(TEMPERATURE)]
    if len(prefixes) != 1:
        found = f"those of {len(prefixes)}: {', '.join(prefixes)}" if prefixes else "no " + TEMPERATURE
        raise ValueError(f"{path}: expected the weights of one CLIP, found {found}; torch.save those of one alone")
    # Behind another prefix lie parts of a trainer: the network of another loss, statistics.
    weights = {name.removeprefix(prefixes[0]): value for name, value in weights.items() if name.startswith(prefixes[0])}
    if content.get("kind") == KIND:
        config = check_type(content.get("build"), Build, f"{path}: build")["config"]
        record = Record(config["architecture"].get("quick_gelu", False), preprocessing_of(config))
    else:
        record = file_record(path, weights)
    check_finite(weights, path)
    weights = {
        name: value.float() if value.is_floating_point() else value  # OpenAI's are float16
        for name, value in weights.items()
        if name not in OPENAI_CONSTANTS
    }
    return Pretrained(path, weights, record)


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], source: str | Path) -> None:
    """Load every tensor of the network, or none: the error names what is missing."""
    weights = {name: value for name, value in weights.items() if not name.startswith("text_decoder.")}  # of CoCa
    weights = convert_state_dict(network, weights)
    if hasattr(network, "text"):
        weights = convert_to_custom_text_state_dict(weights)
        weights.pop("text.transformer.embeddings.position_ids", None)  # of transformers before 4.31
    for name in ("logit_scale", "logit_bias"):  # (1,) in some files
        if name in weights:
            weights[name] = weights[name].reshape(())
    if network.logit_bias is None:
        weights.pop("logit_bias", None)  # --loss clip does not depend on it
    elif "logit_bias" not in weights:  # weights of --loss clip
        weights["logit_bias"] = network.logit_bias.detach().clone()
    resize_pos_embed(weights, network)  # of a ViT, for another image size
    positions, trunk = weights.get("visual.trunk.pos_embed"), getattr(network.visual, "trunk", None)
    if positions is not None and getattr(trunk, "pos_embed", positions).shape != positions.shape:
        prefix = 0 if getattr(trunk, "no_embed_class", False) else trunk.num_prefix_tokens
        weights["visual.trunk.pos_embed"] = resample_abs_pos_embed(
            positions, list(trunk.patch_embed.grid_size), num_prefix_tokens=prefix
        )
    load_every_tensor(network, weights, source, "this model (--pretrained none: random ones)")


def _read(path: Path) -> Any:
    """A file of tensors, or the tensors of a TorchScript archive such as OpenAI's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of such archives
        try:
            return read_tensors(path)
        except ValueError as error:
            try:  # only the tensors of an archive are used, its program is not run
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
            except RuntimeError:
                raise error from None
