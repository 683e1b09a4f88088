"""Settings of LLaVA. Edit them here or in config.json, or override one on the command line: `--batch_size 16`.

That is for inference and evaluation. Fine-tuning (train.py) takes FineTuning, Training and Logging below, and every
other flag of Hugging Face's TrainingArguments, on the command line or by --config FILE.json.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from common.cli.errors import CommandLineError
from common.cli.tool_parser import Share
from common.cli.trainer_flags import read_flags

# --- model ------------------------------------------------------------------------------------------------------------
MODEL_ID = "llava-hf/llava-1.5-7b-hf"  # LLaVA, Qwen-VL, Gemma 3 or another model of docs/llava.md: name or folder
ADAPTER = ""  # folder of a LoRA adapter that llava/train.py wrote for this model
BITS = 16  # 4 or 8: quantised weights, by bitsandbytes on a GPU
PRECISION = "auto"  # bf16, fp16, fp32; auto: fp32 on a CPU, on a GPU bf16 if supported, else fp16
ATTENTION = "auto"  # flash_attention_2, sdpa, eager; auto: flash_attention_2 if installed and usable, else sdpa
DEVICE = "auto"  # cpu, cuda, cuda:1, ...; auto: a GPU if there is one
SERVER_URL = ""  # OpenAI-compatible server (vLLM, SGLang) in place of a local model: http://host:8000/v1
SERVER_REQUESTS = 16  # concurrent requests to the server

# --- prompts and generation -------------------------------------------------------------------------------------------
LANGUAGE = "en"  # a key of PROMPTS below
SYSTEM_PROMPT = "auto"  # auto: that of fine-tuning, or Vicuna's for Vicuna's chat template; or your own text
FEED_DESCRIPTION = False  # put the description of the first stage into the scoring prompt
DESCRIPTION_TEMPERATURE = 0.0  # 0: greedy decoding
SCORE_TEMPERATURE = 0.3
NUM_BEAMS = 1  # of the beam search where the temperature is 0, so for descriptions; 1: greedy
TOP_P = 0.9  # nucleus sampling: share of the probability mass to draw from
DESCRIPTION_TOKENS = 256  # maximum tokens of a description
ANALYSIS_TOKENS = 256  # maximum tokens of a score with its analysis
MAX_ATTEMPTS = 3  # answers sampled until one states a score; if none does, the score is null
BATCH_SIZE = 8  # images, and texts, per forward pass
SEED = 0

# --- inference --------------------------------------------------------------------------------------------------------
IMAGE = ""  # one image, with --text; without both, test_cases below are scored
TEXT = ""
INPUT = ""  # .csv with columns image,text or .jsonl with these fields; paths relative to the file
OUTPUT = ""  # .jsonl of results; pairs with a result in it are not scored again
JSON = False  # print JSON instead of text

# --- evaluation -------------------------------------------------------------------------------------------------------
DATA = ""  # .jsonl of samples: image, text, and optionally reference, keywords, traits (docs/llava.md)
OUTPUT_DIR = "results/llava"
SENTENCE_ENCODER = ""  # Hugging Face sentence encoder for the semantic cosine: name or folder
NUM_NEGATIVES = 1  # texts of other images that each image is scored with, where a sample names no `negatives`
LIMIT = 0  # maximum number of samples, drawn at random; 0: all

# (path of the image, text in English to score it with); paths relative to the current folder or the repository root.
test_cases = [
    ("docs/sample_styles.png", "A sheet of small drawings: the same scenes in fifteen styles, one style a row."),
    ("docs/sample_styles.png", "A photograph of a city street at night."),
    ("docs/maps.png", "A portrait of an old man with a beard."),
]

# {text} and {description} are filled in for each request. `yes`: the answer whose probability is the VQAScore.
PROMPTS = {
    "en": {
        "describe": "Describe this image in detail.",
        "score": "How well does the following text fit this image?\nText: {text}\nAnswer in this form:\n"
        "Score: a whole number from 1 (does not fit) to 10 (fits perfectly)\nAnalysis: the reasons",
        "score_with_description": "A first look at this image found: {description}\nHow well does the following text "
        "fit this image?\nText: {text}\nAnswer in this form:\n"
        "Score: a whole number from 1 (does not fit) to 10 (fits perfectly)\nAnalysis: the reasons",
        "score_begins": "Score: ",
        "yes_no": 'Does this figure show "{text}"? Please answer yes or no.',
        "yes": "Yes",
    },
    "zh": {
        "describe": "请详细描述这张图片。",
        "score": "下面的文字与这张图片有多相符？\n文字：{text}\n请按以下格式回答：\n"
        "评分：1（完全不符）到10（完全相符）之间的整数\n分析：理由",
        "score_with_description": "对这张图片的初步描述：{description}\n下面的文字与这张图片有多相符？\n文字：{text}\n"
        "请按以下格式回答：\n评分：1（完全不符）到10（完全相符）之间的整数\n分析：理由",
        "score_begins": "评分：",
        "yes_no": "这张图片是否展示了“{text}”？请回答是或否。",
        "yes": "是",
    },
}

# The system prompt of every conversation that Vicuna, the language model of LLaVA 1.5, was trained on.
VICUNA_SYSTEM: Final = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# `python llava/inference.py --demo`, after `python llava/train.py --demo`: unseen scenes with matching and other texts.
DEMO = {
    "MODEL_ID": "checkpoints/llava_demo",
    "DATA": "data/sample_llava/test.jsonl",
    "OUTPUT_DIR": "results/llava_demo",
    "DESCRIPTION_TOKENS": 48,
    "ANALYSIS_TOKENS": 48,
    "BATCH_SIZE": 16,
}

# What a value may be. A new constant needs a type: here, or as in NAME: int = 1.
TYPES = {
    "MODEL_ID": str,
    "ADAPTER": str,
    "BITS": int,
    "PRECISION": Literal["auto", "bf16", "fp16", "fp32"],
    "ATTENTION": str,
    "DEVICE": str,
    "SERVER_URL": str,
    "SERVER_REQUESTS": PositiveInt,
    "LANGUAGE": str,
    "SYSTEM_PROMPT": str,
    "FEED_DESCRIPTION": bool,
    "DESCRIPTION_TEMPERATURE": NonNegativeFloat,
    "SCORE_TEMPERATURE": NonNegativeFloat,
    "NUM_BEAMS": PositiveInt,
    "TOP_P": Share,
    "DESCRIPTION_TOKENS": PositiveInt,
    "ANALYSIS_TOKENS": PositiveInt,
    "MAX_ATTEMPTS": PositiveInt,
    "BATCH_SIZE": PositiveInt,
    "SEED": int,
    "IMAGE": str,
    "TEXT": str,
    "INPUT": str,
    "OUTPUT": str,
    "JSON": bool,
    "DATA": str,
    "OUTPUT_DIR": str,
    "SENTENCE_ENCODER": str,
    "NUM_NEGATIVES": NonNegativeInt,
    "LIMIT": NonNegativeInt,
}


@dataclass
class FineTuning:
    """fine-tuning"""

    model_id: str = MODEL_ID  # model to fine-tune: name or folder
    data: str = (
        ""  # LLaVA .json, conversation .jsonl, AniPersonaCaps folder, or webdataset shards: URL or {000..099}.tar
    )
    image_dir: str = ""  # folder that image paths are relative to; default: the folder of --data
    val_split: float = 0.05  # share of images held out for validation
    max_length: int = 2048  # maximum tokens, image included; later turns are dropped
    stream_buffer: int = 4096  # streamed samples in memory, not decoded, of all devices; shuffled among each other
    cache_dir: str = "./.cache/conversations"  # of the file's index and the samples' lengths; may be deleted
    max_skipped: float = 0.05  # maximum share of unusable samples; above it training stops
    style_encoder: str = ""  # checkpoint of one: its style vector, and embed if it has one, as tokens of each image
    independent_turns: bool = False  # turns about one image do not see each other, as if each were alone
    lora_rank: int = 128  # 0: no LoRA, the whole language model is trained
    lora_alpha: int = 256  # LoRA's scale is lora_alpha / lora_rank
    lora_dropout: float = 0.05  # dropout before LoRA's first matrix
    bits: int = 16  # 4 or 8: QLoRA, by bitsandbytes on a GPU
    projector_learning_rate: float = 2e-5  # of the projector, which is always trained; 0: the same
    train_vision_tower: bool = False  # train the whole vision tower too
    freeze_language_model: bool = False  # train the projector only (first stage)
    attention: str = "auto"  # flash_attention_2, sdpa, eager or auto
    system_prompt: str = "auto"  # as in inference
    max_nonfinite_steps: int = 5  # consecutive steps with a non-finite loss or gradient that end the run
    show_samples: int = 4  # validation predictions logged to TensorBoard at each evaluation
    demo: bool = False  # drawn scenes and a small model: minutes on a CPU


@dataclass
class Training:
    """training, by Hugging Face's Trainer"""

    # The recipe is LLaVA's (Liu et al. 2023, arXiv 2310.03744, table 9).
    output_dir: str = "checkpoints/llava"  # an adapter or a model, checkpoint-N/ to resume from, settings, results
    resume_from_checkpoint: bool | str = False  # true: the newest valid checkpoint-N of output_dir; or one's folder
    num_train_epochs: float = 1.0
    max_steps: int = -1  # optimizer steps, in place of epochs; -1: not limited
    per_device_train_batch_size: int = 8  # samples of one device in one pass
    gradient_accumulation_steps: int = 1  # passes per optimizer step
    learning_rate: float = 2e-4  # peak, of all but the projector
    lr_scheduler_type: str = "cosine"  # after the warm-up
    warmup_steps: float = 0.03  # optimizer steps, or below 1 their share
    bf16: bool = False  # mixed precision
    deepspeed: str | None = None  # a configuration file, such as vitp/configs/zero_stage2.json
    eval_strategy: str = "epoch"  # or steps, no
    save_total_limit: int | None = 2  # checkpoints to keep
    seed: int = 42
    prediction_loss_only: bool = True  # evaluation keeps no logits
    remove_unused_columns: bool = False  # the dataset is not one of Hugging Face's, with columns to remove


@dataclass
class Logging:
    """logging"""

    logging_dir: str = "./logs"  # one folder per run: TensorBoard, log.jsonl, skipped.jsonl
    logging_steps: float = 10  # optimizer steps between log entries
    run_name: str | None = None  # of its folder in logging_dir and in report_to; otherwise llava-MODEL-DATE
    # besides TensorBoard: wandb, trackio, mlflow, swanlab, as far as installed
    report_to: list[str] = field(default_factory=list)


# `python llava/train.py --demo`: flags of Trainer and FineTuning; llava/demo.py builds the model.
DEMO_TRAINING = {
    "output_dir": "checkpoints/llava_demo",
    "model_id": "checkpoints/llava_demo/start",
    "data": "data/sample_llava/train.jsonl",
    "system_prompt": "",
    "val_split": 0.03,
    "max_length": 512,
    "lora_rank": 0,
    "projector_learning_rate": 2e-4,
    "learning_rate": 1e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.05,
    "warmup_steps": 100,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "save_steps": 100,
    "save_total_limit": 2,
}


def read_values(argv: list[str]) -> dict[str, Any]:
    """-> values of FineTuning and of Trainer. Later wins: the values above < DEMO_TRAINING < --config FILE < flags."""
    groups = (FineTuning, Training, Logging)
    values = read_flags(groups, argv, "Fine-tune LLaVA on conversations about images.")
    return read_flags(groups, argv, defaults=DEMO_TRAINING) if values["demo"] else values


def read_command_line(argv: list[str]) -> dict[str, Any]:
    """read_values, with the training data."""
    values = read_values(argv)
    if not values["data"]:
        raise CommandLineError(
            "--data is missing: a LLaVA .json, a conversation .jsonl or an AniPersonaCaps folder (or try --demo)"
        )
    return values
