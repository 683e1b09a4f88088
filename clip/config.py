"""CLIP's settings. Edit here or in config.json, or override one on the command line: `--batch_size 64`."""

from typing import Literal

from jsonargparse.typing import PositiveInt

# --- data -------------------------------------------------------------------------------------------------------------
# data.json, metadata.jsonl, optimized_metadata.jsonl, images/ + captions/, or *.tar; generated samples if it is empty
DATA_DIR: str = "./data"
TEXT_FIELDS: list[str] = ["character+appearance", "character+personality"]  # texts of a metadata line; + joins fields
VAL_SPLIT: float = 0.1  # share of images for validation; one character, or one caption, stays on one side
CACHE_IMAGES: bool = True  # keep decoded images in CACHE_DIR (about 4 * IMAGE_SIZE^2 bytes each), shared by all runs
CACHE_DIR: str = "./.cache/images"  # may be deleted at any time
NUM_WORKERS: int = -1  # loader processes; -1: none on a CPU, where they only take its cores, else up to 8
MAX_SKIPPED: float = 0.05  # share of unusable pairs above which the run stops
CROP_SCALE: float = 0.8  # smallest share of the area that a random crop keeps; 1 = no crop
FLIP_PROB: float = 0.5  # mirrored left to right; never where the text says left or right

# --- model ------------------------------------------------------------------------------------------------------------
MODEL_NAME: str = "ViT-B/32"  # or ViT-B/16, ViT-L/14, RN50, RN101, small, best_model.pth, a Hugging Face CLIP folder
PRETRAINED: str = ""  # openai, another open_clip tag, or a file of weights; empty: from scratch
IMAGE_SIZE: int = 0  # pixels of the square input; 0: the model's own
PROJECTION_DIM: int = 0  # width of the shared space; 0: the model's own
IMAGE_TOWER: str = ""  # a timm model in place of the image tower; hf-hub:OWNER/NAME and local-dir:FOLDER work too
IMAGE_WEIGHTS: bool | str = False  # weights of IMAGE_TOWER: true (timm's), false, or a file
TEXT_TOWER: str = ""  # a Hugging Face text encoder in place of CLIP's: name or folder; for Chinese, for example
NORMALISATION: str = "auto"  # channel statistics: auto (those of the weights), clip or imagenet
GRADIENT_CHECKPOINTING: bool = False  # less memory, about a third more time
COMPILE: bool = False  # torch.compile: worth it on a GPU and for long runs

# --- trainable parts --------------------------------------------------------------------------------------------------
FREEZE_BACKBONE: bool = False  # only the projections and the temperature are trainable
LOCK_IMAGE: bool = False  # the image tower is frozen (LiT)
LAYER_DECAY: float = 1.0  # learning rate of each layer as a share of the one above; 0.75 is usual for fine-tuning
PATCH_DROPOUT: float = 0.0  # share of patches dropped from each training image; faster, 0.5 for large data
EMA_DECAY: float = 0.0  # moving average of the weights, used for validation and best_model.pth; 0 = off

# --- loss -------------------------------------------------------------------------------------------------------------
LOSS: Literal["clip", "siglip"] = "clip"  # clip: symmetric cross-entropy; siglip: one sigmoid per pair
SINGLE_POSITIVE: bool = False  # the textbook loss: equal captions and images of one character are negatives too

# --- training ---------------------------------------------------------------------------------------------------------
BATCH_SIZE: PositiveInt = 32  # pairs over all devices; smaller if memory runs out
ACCUM_BATCHES: PositiveInt = 1  # batches per loss, at the memory of one batch (gradient cache)
NUM_EPOCHS: PositiveInt = 50
LEARNING_RATE: float = 1e-4  # at its peak
MIN_LEARNING_RATE: float = 1e-6  # where the cosine ends
WARMUP_STEPS: int = 100  # optimizer steps of linear warmup
WEIGHT_DECAY: float = 0.05
GRADIENT_CLIP_NORM: float = 1.0  # maximum norm of the gradient of all parameters; 0 = no limit
PATIENCE: int = 0  # epochs without a better RSum after which training stops; 0 = never
PRECISION: str = "auto"  # fp32, bf16 or fp16; auto: bf16 on a GPU that has it, else fp32
DEVICE: str = "auto"  # auto: a GPU if there is one; or cpu
SEED: int = 0

# --- run --------------------------------------------------------------------------------------------------------------
CHECKPOINT_DIR: str = "./model-checkpoint"  # best_model.pth and last/; an older run in it is moved aside
RESULTS_DIR: str = "./results"  # training_curves.png, model_metrics.png, training_results.json
LOG_DIR: str = "./logs"  # one folder per run: TensorBoard and log.jsonl
RESUME: bool = False  # resume from CHECKPOINT_DIR/last; the final weights equal those of an uninterrupted run
SAVE_STEPS: int = 200  # optimizer steps between writes of last/, which is also written after each epoch
LOG_STEPS: int = 10  # optimizer steps between log entries
MAX_NONFINITE_STEPS: int = 5  # consecutive steps with a non-finite loss or gradient that end the run; fewer are skipped

# `python clip/train.py --demo`: generated scenes and a small network, minutes on two CPU cores, no download.
DEMO = {
    "DATA_DIR": "./data/sample_captions",
    "CHECKPOINT_DIR": "./model-checkpoint/demo",
    "RESULTS_DIR": "./results/clip_demo",
    "MODEL_NAME": "small",
    "NUM_EPOCHS": 12,
    "BATCH_SIZE": 64,
    "LEARNING_RATE": 3e-4,
    "WARMUP_STEPS": 20,
}
