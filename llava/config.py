"""LLaVA's settings. Edit here or in config.json, or override one on the command line: `--batch_size 16`.

Fine-tuning has settings of its own (FineTuning below), beside all of Hugging Face's TrainingArguments.
"""

from dataclasses import dataclass, field

# --- model ------------------------------------------------------------------------------------------------------------
MODEL_ID: str = "llava-hf/llava-1.5-7b-hf"  # name or folder of a Llava, LlavaNext or InternVL model of transformers
ADAPTER: str = ""  # folder of a LoRA adapter that llava/train.py wrote for this model
BITS: int = 16  # 4 or 8 load the weights quantised, by bitsandbytes on a GPU
PRECISION: str = "auto"  # bf16, fp16 or fp32; auto: fp32 on a CPU, on a GPU bf16 where it can, else fp16
ATTENTION: str = "auto"  # auto: flash_attention_2 where it is installed and can be used, else sdpa; or eager
DEVICE: str = "auto"  # auto: a GPU if there is one; or cpu
SERVER_URL: str = ""  # an OpenAI-compatible server (vLLM, SGLang) in place of a model here: http://host:8000/v1
SERVER_REQUESTS: int = 16  # requests that the server is given at once

# --- prompts and generation -------------------------------------------------------------------------------------------
LANGUAGE: str = "en"  # which of PROMPTS below
SYSTEM_PROMPT: str = "auto"  # auto: as in fine-tuning, else Vicuna's where the chat template is Vicuna's; or your words
FEED_DESCRIPTION: bool = False  # the scoring prompt holds the description of the first stage
DESCRIPTION_TEMPERATURE: float = 0.0  # 0: always the most probable token
SCORE_TEMPERATURE: float = 0.3
TOP_P: float = 0.9  # sampling draws from the most probable tokens that together have this share
DESCRIPTION_TOKENS: int = 256  # most tokens of a description
ANALYSIS_TOKENS: int = 256  # most tokens of a score with its analysis
MAX_ATTEMPTS: int = 3  # answers asked for until one holds a score; then the score is null
BATCH_SIZE: int = 8  # images, and texts, that go through the model together
SEED: int = 0

# --- inference --------------------------------------------------------------------------------------------------------
IMAGE: str = ""  # one image, with --text; else test_cases below are run
TEXT: str = ""
INPUT: str = ""  # .csv with columns image,text or .jsonl with these fields; paths relative to the file
OUTPUT: str = ""  # .jsonl of results; lines that are there already are not asked again
JSON: bool = False  # print JSON in place of text

# --- evaluation -------------------------------------------------------------------------------------------------------
DATA: str = ""  # .jsonl of samples: image, text, and what there is of reference, keywords, traits (docs/llava.md)
OUTPUT_DIR: str = "results/llava"
SENTENCE_ENCODER: str = ""  # name or folder of a Hugging Face sentence encoder, for the semantic cosine
NUM_NEGATIVES: int = 1  # texts of other images that each image is scored against
LIMIT: int = 0  # only so many samples, drawn at random; 0 = all

# (path of the image, text in English to be scored against it); paths from here or from the repository root.
test_cases = [
    ("docs/sample_styles.png", "A sheet of small drawings: the same scenes in fifteen styles, one style a row."),
    ("docs/sample_styles.png", "A photograph of a city street at night."),
    ("docs/maps.png", "A portrait of an old man with a beard."),
]

# {text} and {description} stand for the words of a request. `yes`: the answer whose probability is the VQAScore.
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

# The line that Vicuna, the language model of LLaVA 1.5, has seen at the head of every conversation.
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# `python llava/inference.py --demo`, after `python llava/train.py --demo`: unseen scenes, matching and other texts.
DEMO = {
    "MODEL_ID": "checkpoints/llava_demo",
    "DATA": "data/sample_llava/test.jsonl",
    "OUTPUT_DIR": "results/llava_demo",
    "DESCRIPTION_TOKENS": 48,
    "ANALYSIS_TOKENS": 48,
    "BATCH_SIZE": 16,
}


@dataclass
class FineTuning:
    """What llava/train.py can be told beside Hugging Face's TrainingArguments."""

    model_id: str = field(default=MODEL_ID, metadata={"help": "name or folder of the model to fine-tune"})
    data: str = field(default="", metadata={"help": "LLaVA .json, conversation .jsonl, or AniPersonaCaps folder"})
    image_dir: str = field(default="", metadata={"help": "where image paths begin; default: the folder of --data"})
    val_split: float = field(default=0.05, metadata={"help": "share of images kept for validation"})
    max_length: int = field(default=2048, metadata={"help": "tokens, image included; later turns are left out"})
    max_skipped: float = field(default=0.05, metadata={"help": "share of unusable samples above which training stops"})
    lora_rank: int = field(default=128, metadata={"help": "0: no LoRA, whole language model learns"})
    lora_alpha: int = field(default=256, metadata={"help": "LoRA's scale is lora_alpha / lora_rank"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout before LoRA's first matrix"})
    bits: int = field(default=16, metadata={"help": "4 or 8: QLoRA, by bitsandbytes on a GPU"})
    projector_learning_rate: float = field(
        default=2e-5, metadata={"help": "of the projector, which always learns; 0: as the rest"}
    )
    train_vision_tower: bool = field(default=False, metadata={"help": "the vision tower learns too, whole"})
    freeze_language_model: bool = field(default=False, metadata={"help": "only the projector learns (first stage)"})
    attention: str = field(default="auto", metadata={"help": "flash_attention_2, sdpa, eager or auto"})
    system_prompt: str = field(default="auto", metadata={"help": "as in inference"})
    max_nonfinite_steps: int = field(
        default=5, metadata={"help": "in a row, their loss or gradient not finite, that end the run"}
    )
    show_samples: int = field(default=4, metadata={"help": "validation answers written to TensorBoard each time"})
    demo: bool = field(default=False, metadata={"help": "drawn scenes and a small model: minutes on a CPU"})


# `python llava/train.py --demo`, in Trainer's and FineTuning's names; the model is built from nothing (llava/demo.py).
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
