"""CLIP's settings. Edit here or in config.json, or override one on the command line: `--batch_size 64`."""

from typing import Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

# --- data -------------------------------------------------------------------------------------------------------------
# folder of data.json, metadata.jsonl, metadata.csv, images/ + captions/, *.tar or *.parquet, or a file: .csv, .tsv,
# .parquet, .token, COCO's captions_*.json; in place of a ./data without them
# AniPersonaCaps/, if it was cloned, and drawn samples, if ./data is empty; or shards that are streamed, by a pattern
# such as https://HOST/{00000..00099}.tar, s3://BUCKET/*.tar, hf://datasets/OWNER/NAME
DATA_DIR = "./data"
STREAM = False  # stream the *.tar of a local DATA_DIR, too, and keep no decoded images; for data larger than a cache
TEXT_FIELDS = ["character+appearance", "character+personality"]  # texts of a metadata line; + joins fields
CSV_IMG_KEY = ""  # column of image paths in a table; empty: image_path, file_name, image, or filepath
CSV_CAPTION_KEY = ""  # column of texts; empty: caption, captions, text, or texts, or title with filepath
CSV_SEPARATOR = ""  # of .csv and .tsv; empty: the one of , ; tab | that the first line has
VAL_SPLIT = 0.1  # share of images for validation; one character, or one caption, stays on one side
VAL_DATA = ""  # folder, file or shards to validate on in place of VAL_SPLIT; streamed data have no other validation
EPOCH_SAMPLES = 0  # streamed samples after which an epoch ends; 0: all of them
STREAM_LANES = 8  # shards that a batch is drawn from; a multiple of the devices, or they read the same shards
STREAM_BUFFER = 16384  # streamed samples in memory, not decoded, of all devices; they are shuffled among each other
CACHE_IMAGES = True  # keep decoded images in CACHE_DIR, for all epochs and runs
CACHE_DIR = "./.cache/images"  # on a disk of this machine, not a network file system; may be deleted at any time
CACHE_GB = 0.0  # of CACHE_DIR at most; 0: a quarter of the free disk. The rest is decoded at each use
# uint8: exact, 7 * IMAGE_SIZE^2 bytes of a square image, 9 of one of 4:3; jpeg: a fifth of that, quality 95, read at a
# third of the speed
CACHE_FORMAT = "uint8"
NUM_WORKERS = -1  # loader processes; -1: none on a CPU, where they only take its cores, else up to 8
MAX_SKIPPED = 0.05  # share of unusable pairs above which the run stops
CROP_SCALE = 0.8  # smallest share of the area that a random crop keeps; 1 = no crop
FLIP_PROB = 0.5  # mirrored left to right; never where the text says left or right

# --- model ------------------------------------------------------------------------------------------------------------
# or ViT-B/16, ViT-L/14, RN50, RN101, small, any other of open_clip; best_model.pth, a Hugging Face CLIP folder
MODEL_NAME = "ViT-B/32"
# auto: OpenAI's weights, or the only published ones, downloaded once; none: from scratch; a tag of open_clip; a file
PRETRAINED = "auto"
IMAGE_SIZE = 0  # pixels of the square input; 0: the model's own
PROJECTION_DIM = 0  # width of the shared space; 0: the model's own
IMAGE_TOWER = ""  # a timm model in place of the image tower; hf-hub:OWNER/NAME and local-dir:FOLDER work too
IMAGE_WEIGHTS = False  # weights of IMAGE_TOWER: true (timm's), false, or a file
TEXT_TOWER = ""  # a Hugging Face text encoder in place of CLIP's: name or folder; for Chinese, for example
NORMALISATION = "auto"  # channel statistics: auto (those of the weights), clip or imagenet
GRADIENT_CHECKPOINTING = False  # less memory, about a third more time
COMPILE = False  # torch.compile: worth it on a GPU and for long runs

# --- trainable parts --------------------------------------------------------------------------------------------------
FREEZE_BACKBONE = False  # only the projections and the temperature are trainable
LOCK_IMAGE = False  # the image tower is frozen (LiT)
LAYER_DECAY = 1.0  # learning rate of each layer as a share of the one above; 0.75 is usual for fine-tuning
PATCH_DROPOUT = 0.0  # share of patches dropped from each training image; faster, 0.5 for large data
EMA_DECAY = 0.0  # moving average of the weights, used for validation and best_model.pth; 0 = off

# --- loss -------------------------------------------------------------------------------------------------------------
LOSS = "clip"  # clip: symmetric cross-entropy; siglip: one sigmoid per pair
SINGLE_POSITIVE = False  # the textbook loss: equal captions and images of one character are negatives too

# --- training ---------------------------------------------------------------------------------------------------------
BATCH_SIZE = 32  # pairs over all devices; smaller if memory runs out
ACCUM_BATCHES = 1  # batches per loss, at the memory of one batch (gradient cache)
NUM_EPOCHS = 50
LEARNING_RATE = 1e-4  # at its peak
MIN_LEARNING_RATE = 1e-6  # where the cosine ends
WARMUP_STEPS = 100  # optimizer steps of linear warmup
WEIGHT_DECAY = 0.05
GRADIENT_CLIP_NORM = 1.0  # maximum norm of the gradient of all parameters; 0 = no limit
PATIENCE = 0  # epochs without a better RSum after which training stops; 0 = never
PRECISION = "auto"  # fp32, bf16 or fp16; auto: bf16 on a GPU that has it, else fp32
DEVICE = "auto"  # auto: a GPU if there is one; or cpu
SEED = 0

# --- run --------------------------------------------------------------------------------------------------------------
CHECKPOINT_DIR = "./model-checkpoint"  # best_model.pth and last/; an older run in it is moved aside
RESULTS_DIR = "./results"  # training_curves.png, model_metrics.png, training_results.json
LOG_DIR = "./logs"  # one folder per run: TensorBoard and log.jsonl
RUN_NAME = ""  # of its folder in LOG_DIR and in REPORT_TO; empty: clip-MODEL-DATE
REPORT_TO = []  # besides TensorBoard: wandb, trackio, mlflow, swanlab, as far as installed
RESUME = False  # resume from CHECKPOINT_DIR/last; the final weights equal those of an uninterrupted run
SAVE_STEPS = 200  # optimizer steps between writes of last/, which is also written after each epoch
LOG_STEPS = 10  # optimizer steps between log entries
MAX_NONFINITE_STEPS = 5  # consecutive steps with a non-finite loss or gradient that end the run; fewer are skipped

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

# What a value may be. A new constant needs a type: here, or as in NAME: int = 1.
TYPES = {
    "DATA_DIR": str,
    "TEXT_FIELDS": list[str],
    "CSV_IMG_KEY": str,
    "CSV_CAPTION_KEY": str,
    "CSV_SEPARATOR": str,
    "STREAM": bool,
    "VAL_SPLIT": float,
    "VAL_DATA": str,
    "EPOCH_SAMPLES": NonNegativeInt,
    "STREAM_LANES": PositiveInt,
    "STREAM_BUFFER": PositiveInt,
    "CACHE_IMAGES": bool,
    "CACHE_DIR": str,
    "CACHE_GB": NonNegativeFloat,
    "CACHE_FORMAT": Literal["uint8", "jpeg"],
    "NUM_WORKERS": int,
    "MAX_SKIPPED": float,
    "CROP_SCALE": float,
    "FLIP_PROB": float,
    "MODEL_NAME": str,
    "PRETRAINED": str,
    "IMAGE_SIZE": int,
    "PROJECTION_DIM": int,
    "IMAGE_TOWER": str,
    "IMAGE_WEIGHTS": bool | str,
    "TEXT_TOWER": str,
    "NORMALISATION": Literal["auto", "clip", "imagenet"],
    "GRADIENT_CHECKPOINTING": bool,
    "COMPILE": bool,
    "FREEZE_BACKBONE": bool,
    "LOCK_IMAGE": bool,
    "LAYER_DECAY": float,
    "PATCH_DROPOUT": float,
    "EMA_DECAY": float,
    "LOSS": Literal["clip", "siglip"],
    "SINGLE_POSITIVE": bool,
    "BATCH_SIZE": PositiveInt,
    "ACCUM_BATCHES": PositiveInt,
    "NUM_EPOCHS": PositiveInt,
    "LEARNING_RATE": float,
    "MIN_LEARNING_RATE": float,
    "WARMUP_STEPS": int,
    "WEIGHT_DECAY": float,
    "GRADIENT_CLIP_NORM": float,
    "PATIENCE": int,
    "PRECISION": Literal["auto", "fp32", "bf16", "fp16"],
    "DEVICE": str,
    "SEED": int,
    "CHECKPOINT_DIR": str,
    "RESULTS_DIR": str,
    "LOG_DIR": str,
    "RUN_NAME": str,
    "REPORT_TO": list[str],
    "RESUME": bool,
    "SAVE_STEPS": int,
    "LOG_STEPS": int,
    "MAX_NONFINITE_STEPS": int,
}
