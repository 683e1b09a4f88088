"""Settings of the style encoder. Edit here, or override one on the command line: `python train.py --epochs 5`."""

from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

# --- data -------------------------------------------------------------------------------------------------------------
DATA_DIR = "./data"  # <style>/<name>_img.png, or ordinary images in <style>/; beside them <name>_embed.pt, ...
IGNORE_TARGETS = []  # targets to ignore: any of embed, pooled, mask
VAL_SPLIT = 0.1  # share of each style's images for validation; equal names stay on one side
VAL_STYLES = []  # whole styles for validation, by folder name; VAL_SPLIT is then not used
CACHE_IMAGES = True  # keep decoded images in CACHE_DIR, for all epochs and runs
CACHE_DIR = "./.cache/images"  # on a disk of this machine, not a network file system; may be deleted at any time
CACHE_GB = 0.0  # of CACHE_DIR at most; 0: a quarter of the free disk. The rest is decoded at each use
# uint8: exact, 7 * IMAGE_SIZE^2 bytes of a square image, 9 of one of 4:3; jpeg: a fifth of that, quality 95, read at a
# third of the speed
CACHE_FORMAT = "uint8"
NUM_WORKERS = -1  # loader processes; -1: none on a CPU, where they would compete for its cores, else up to 8
MAX_SKIPPED = 0.05  # share of unreadable images above which the run stops

# --- augmentation (a function of SEED, epoch and image) ---------------------------------------------------------------
CROP_SCALE = 0.8  # smallest share of the area of a crop; zooming changes strokes; 1 = no crop
FLIP_PROB = 0.5  # horizontal flip
GREY_PROB = 0.35  # share of batches without colours, so that strokes count, not only the palette
REMIX_SHARE = 0.25  # share of each batch's style groups redrawn into invented styles; 0 = none
DRAWN_SHARE = 0.25  # share that are drawings in invented styles (docs/invented_styles.png)
DRAWN_STYLES = 256  # invented styles to draw, once, in CACHE_DIR; 0 = none

# --- model ------------------------------------------------------------------------------------------------------------
MODEL_NAME = "vit_base_patch16_224"  # a timm model with a grid of patches; hf-hub:OWNER/NAME; local-dir:FOLDER
PRETRAINED = True  # true: timm's weights; false: none; or a local .pth/.safetensors of this architecture
IMAGE_SIZE = 0  # pixels of the square input; 0: as the backbone was trained
# resampler: learned queries attend to the patches; linear: one token per patch
SEQUENCE_HEAD = "resampler"
STYLE_WIDTH = 128  # dimensions of the learned part of the style vector
# of the backbone's 5 feature maps, how many from the shallowest stay as pretrained; the style vector reads their Gram
# matrices too; not used from scratch
FROZEN_MAPS = 4
DROP_PATH = 0.0  # stochastic depth in the backbone, rate of its last block
DROPOUT = 0.1  # in the heads
GRADIENT_CHECKPOINTING = False  # less memory, about a third more time
COMPILE = False  # torch.compile: pays off on a GPU in long runs

# --- loss: the weight of each part ------------------------------------------------------------------------------------
EMBED_MSE_WEIGHT = 1.0
EMBED_COSINE_WEIGHT = 1.0
POOLED_MSE_WEIGHT = 1.0
POOLED_COSINE_WEIGHT = 1.0
MASK_WEIGHT = 0.5
STYLE_WEIGHT = 1.0  # supervised contrast between styles
TEMPERATURE = 0.1  # of the contrast

# --- training ---------------------------------------------------------------------------------------------------------
EPOCHS = 50
BATCH_SIZE = 32  # images per step over all devices; smaller if the GPU runs out of memory
IMAGES_PER_STYLE = 2  # of one style in a batch, the positives of its contrast; at least 2
LEARNING_RATE = 1e-4  # of the heads, at its peak
BACKBONE_LR_SCALE = 1.0  # the backbone's learning rate relative to that of the heads
MIN_LEARNING_RATE = 1e-6  # end of the cosine
WARMUP_STEPS = 100  # optimizer steps of linear warmup
WEIGHT_DECAY = 0.05
CLIP_NORM = 1.0  # largest norm of the gradient; 0 = no limit
ACCUMULATION = 1  # batches per optimizer step; the contrast sees one batch at a time
FREEZE_EPOCHS = 0  # first epochs with a frozen backbone
EMA_DECAY = 0.0  # moving average of the weights, validated and saved; 0 = off, 0.999 is usual
PRECISION = "auto"  # auto: bf16 on a GPU that supports it, else fp32
DEVICE = "auto"  # auto: a GPU if there is one; or cpu
SEED = 0

# --- run --------------------------------------------------------------------------------------------------------------
# model_epoch_N.pth, best.pth, last/, plots and results; an earlier run in it is moved, never overwritten
CHECKPOINT_DIR = "./checkpoints"
LOG_DIR = "./logs"  # one folder per run: TensorBoard and log.jsonl
RUN_NAME = ""  # of its folder in LOG_DIR and in REPORT_TO; empty: style-MODEL-DATE
REPORT_TO = []  # besides TensorBoard: wandb, trackio, mlflow, swanlab, as far as installed
RESUME = False  # continue from CHECKPOINT_DIR/last, with the same weights as without a stop
SAVE_EPOCHS = 10  # epochs between model_epoch_N.pth files; the last epoch is always written
SAVE_STEPS = 200  # optimizer steps between saves of last/, which each epoch ends with too
LOG_STEPS = 10  # optimizer steps between log entries
MAX_NONFINITE_STEPS = 5  # consecutive steps with a non-finite loss or gradient that end the run
PATIENCE = 0  # epochs without a better validation score after which training stops; 0 = never

# `python train.py --demo`: sample data and a small network, minutes on two CPU cores, no download.
DEMO = {
    "DATA_DIR": "./data/sample_styles",
    "CHECKPOINT_DIR": "./checkpoints/demo",
    "MODEL_NAME": "efficientnet_lite0",
    "PRETRAINED": False,
    "IMAGE_SIZE": 96,
    "EPOCHS": 6,
    "BATCH_SIZE": 48,
    "LEARNING_RATE": 1e-3,
    "WARMUP_STEPS": 20,
}

# What a value may be. A new constant needs a type: here, or as in NAME: int = 1.
TYPES = {
    "DATA_DIR": str,
    "IGNORE_TARGETS": list[str],
    "VAL_SPLIT": ClosedUnitInterval,
    "VAL_STYLES": list[str],
    "CACHE_IMAGES": bool,
    "CACHE_DIR": str,
    "CACHE_GB": NonNegativeFloat,
    "CACHE_FORMAT": Literal["uint8", "jpeg"],
    "NUM_WORKERS": int,
    "MAX_SKIPPED": ClosedUnitInterval,
    "CROP_SCALE": ClosedUnitInterval,
    "FLIP_PROB": ClosedUnitInterval,
    "GREY_PROB": ClosedUnitInterval,
    "REMIX_SHARE": ClosedUnitInterval,
    "DRAWN_SHARE": ClosedUnitInterval,
    "DRAWN_STYLES": NonNegativeInt,
    "MODEL_NAME": str,
    "PRETRAINED": bool | str,
    "IMAGE_SIZE": NonNegativeInt,
    "SEQUENCE_HEAD": Literal["resampler", "linear"],
    "STYLE_WIDTH": PositiveInt,
    "FROZEN_MAPS": NonNegativeInt,
    "DROP_PATH": ClosedUnitInterval,
    "DROPOUT": ClosedUnitInterval,
    "GRADIENT_CHECKPOINTING": bool,
    "COMPILE": bool,
    "EMBED_MSE_WEIGHT": NonNegativeFloat,
    "EMBED_COSINE_WEIGHT": NonNegativeFloat,
    "POOLED_MSE_WEIGHT": NonNegativeFloat,
    "POOLED_COSINE_WEIGHT": NonNegativeFloat,
    "MASK_WEIGHT": NonNegativeFloat,
    "STYLE_WEIGHT": NonNegativeFloat,
    "TEMPERATURE": PositiveFloat,
    "EPOCHS": PositiveInt,
    "BATCH_SIZE": PositiveInt,
    "IMAGES_PER_STYLE": PositiveInt,
    "LEARNING_RATE": NonNegativeFloat,
    "BACKBONE_LR_SCALE": NonNegativeFloat,
    "MIN_LEARNING_RATE": NonNegativeFloat,
    "WARMUP_STEPS": NonNegativeInt,
    "WEIGHT_DECAY": NonNegativeFloat,
    "CLIP_NORM": NonNegativeFloat,
    "ACCUMULATION": PositiveInt,
    "FREEZE_EPOCHS": NonNegativeInt,
    "EMA_DECAY": ClosedUnitInterval,
    "PRECISION": Literal["auto", "fp32", "bf16", "fp16"],
    "DEVICE": str,
    "SEED": int,
    "CHECKPOINT_DIR": str,
    "LOG_DIR": str,
    "RUN_NAME": str,
    "REPORT_TO": list[str],
    "RESUME": bool,
    "SAVE_EPOCHS": PositiveInt,
    "SAVE_STEPS": PositiveInt,
    "LOG_STEPS": PositiveInt,
    "MAX_NONFINITE_STEPS": PositiveInt,
    "PATIENCE": NonNegativeInt,
}
