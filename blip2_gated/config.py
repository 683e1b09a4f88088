"""Settings of BLIP2-gated. Edit here or in configs/, or override one on the command line: `--training.batch_size 4`."""

SECTIONS = (
    "data",
    "model",
    "model.efficientnet",
    "model.gating",
    "model.prompt_mapper",
    "model.lora",
    "training",
    "loss",
)

# --- data -------------------------------------------------------------------------------------------------------------
DATA_DATASET_NAME: str = "csv"  # how the tables are read: csv, artquest, or one of yours (DATASETS in dataset.py)
DATA_ROOT: str = "./data/vqa"  # folder of the tables; drawn samples are put there where it does not exist
DATA_IMAGE_ROOT: str = ""  # folder that image names are relative to; empty: data.root
DATA_TRAIN_CSV: str = "train.csv"
DATA_VAL_CSV: str = "val.csv"
DATA_TEST_CSV: str = "test.csv"
DATA_IMAGE_COLUMN: str = "image"
DATA_QUESTION_COLUMN: str = "question"
DATA_ANSWER_COLUMN: str = "answer"
DATA_STYLE_COLUMN: str = "style"  # empty: styles are not known
DATA_TYPE_COLUMN: str = ""  # kinds of question, for scores; empty: 'style' where the answer names it, or 'other'
DATA_STYLE_TYPE: str = "school"  # artquest: an image's style is the answer to its question of this type
DATA_PROMPT: str = "Question: {} Answer:"
DATA_MAX_TOKENS: int = 48  # of a question, and of an answer; what is longer is cut and counted
DATA_MAX_SKIPPED: float = 0.05  # share of unusable samples above which the run stops
DATA_CACHE_DIR: str = "./.cache"  # decoded images, kept features; may be deleted at any time
DATA_NUM_WORKERS: int = -1  # loader processes; -1: none on a CPU, where they only take its cores, else up to 8

# --- model ------------------------------------------------------------------------------------------------------------
# hub name or local folder with weights; or a JSON config, or 'small', built from scratch (then with model.train all)
MODEL_BLIP2: str = "Salesforce/blip2-opt-2.7b"
MODEL_TRAIN: str = "gates"  # what learns of BLIP-2 besides what is added: gates (nothing), qformer, all
MODEL_FROZEN_DTYPE: str = "auto"  # number format of the frozen towers: fp32, bf16; auto: bf16 on a GPU
MODEL_EFFICIENTNET_NAME: str = "efficientnet_b3"  # any EfficientNet of timm
MODEL_EFFICIENTNET_WEIGHTS: bool | str = True  # true (ImageNet, timm's), false (random) or a file, WikiArt's for one
MODEL_EFFICIENTNET_IMAGE_SIZE: int = 0  # pixels; 0: the network's own
MODEL_EFFICIENTNET_OUTPUT_DIM: int = 0  # what its feature is projected to: the Q-Former's width, 768; 0 takes that
MODEL_GATING_TYPE: str = "film"  # film, gate, kv; none: plain BLIP-2, for comparison
MODEL_GATING_PER_HEAD: bool = False  # one number per attention head in place of one per channel
MODEL_GATING_INIT_SCALE: float = 1.0  # strength of the gates at the start; it learns
MODEL_PROMPT_MAPPER_NUM_TOKENS: int = 8  # control tokens
MODEL_PROMPT_MAPPER_HIDDEN: int = 512
MODEL_PROMPT_MAPPER_DROPOUT: float = 0.1
MODEL_LORA_ENABLED: bool = False  # LoRA on W_K and W_V of the cross-attentions
MODEL_LORA_RANK: int = 8
MODEL_LORA_ALPHA: float = 16.0
MODEL_LORA_DROPOUT: float = 0.05

# --- training ---------------------------------------------------------------------------------------------------------
TRAINING_EPOCHS: int = 10
TRAINING_BATCH_SIZE: int = 16  # questions over all devices; smaller if memory runs out
TRAINING_ACCUMULATION: int = 1  # batches per optimizer step
TRAINING_LEARNING_RATE: float = 1e-4  # at its peak
TRAINING_MIN_LEARNING_RATE: float = 1e-6  # where the cosine ends
TRAINING_WARMUP_STEPS: int = 200  # optimizer steps of linear warmup
TRAINING_WEIGHT_DECAY: float = 0.05
TRAINING_WARM_START_STEPS: int = 300  # from scratch: steps in which it learns to see, and as many in which to read
TRAINING_CLIP_NORM: float = 1.0  # largest norm of the whole gradient; 0 = no limit
TRAINING_PRECISION: str = "auto"  # fp32, bf16 or fp16 (AMP); auto: bf16 on a GPU that has it, else fp32
TRAINING_CACHE_FEATURES: bool = False  # compute both frozen towers' outputs once, keep them in data.cache_dir
TRAINING_DEVICE: str = "auto"  # auto: a GPU if there is one; or cpu
TRAINING_SEED: int = 0
TRAINING_CHECKPOINT_DIR: str = "./checkpoints/blip2_gated"  # best.pt; an older run in it is moved aside
TRAINING_LOG_DIR: str = "./logs"  # one folder per run: TensorBoard and log.jsonl
TRAINING_SAVE_LAST: bool = False  # keep last/ too, from which --training.resume goes on
TRAINING_RESUME: bool = False  # go on from last/, with the same weights as if never stopped
TRAINING_SAVE_STEPS: int = 200  # optimizer steps between writes of last/, besides one at the end of each epoch
TRAINING_LOG_STEPS: int = 10  # optimizer steps between log entries
TRAINING_MAX_NONFINITE_STEPS: int = (
    5  # in a row, their loss or gradient not finite, that end the run; fewer are left out
)
TRAINING_EVAL_SAMPLES: int = 500  # validation questions that the best model answers at the end; 0 = none

# --- loss -------------------------------------------------------------------------------------------------------------
LOSS_MAIN: float = 1.0  # weight of the language model's loss on answer and newline
LOSS_STYLE_HIT: float = 0.1  # weight of 1 - P(a style is named)
LOSS_CONSISTENCY: float = 0.05  # weight of the symmetric KL between the image's and the text's styles
LOSS_STYLE_HEAD: float = 0.1  # weight of the image's style head, which learns from the style column
LOSS_STYLE_WHERE: str = "answers"  # samples that hit and consistency apply to: answers that name a style, or all
LOSS_DETACH_IMAGE: bool = True  # consistency teaches the text by the image's side and not the reverse

# `python blip2_gated/train.py --demo`: drawn pictures and a small BLIP-2 from scratch, minutes on two CPU cores.
DEMO = {
    "DATA_ROOT": "./data/sample_vqa",
    "MODEL_BLIP2": "small",
    "MODEL_TRAIN": "all",
    "MODEL_EFFICIENTNET_NAME": "tf_efficientnet_lite0",
    "MODEL_EFFICIENTNET_WEIGHTS": False,
    "MODEL_EFFICIENTNET_IMAGE_SIZE": 64,
    "MODEL_PROMPT_MAPPER_HIDDEN": 192,
    "TRAINING_CHECKPOINT_DIR": "./checkpoints/blip2_gated_demo",
    "TRAINING_EPOCHS": 8,
    "TRAINING_BATCH_SIZE": 32,
    "TRAINING_LEARNING_RATE": 5e-4,
    "TRAINING_WARMUP_STEPS": 60,
}
