"""Settings of the style encoder. Edit here, or override one on the command line: `python train.py --epochs 5`."""

from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

# --- data -------------------------------------------------------------------------------------------------------------
DATA_DIR: str = "./data"  # <style>/<name>_img.png, or ordinary images in <style>/; beside them <name>_embed.pt, ...
IGNORE_TARGETS: list[str] = []  # targets to ignore: any of embed, pooled, mask
VAL_SPLIT: ClosedUnitInterval = 0.1  # share of each style's images for validation; equal names stay on one side
VAL_STYLES: list[str] = []  # whole styles for validation, by folder name; VAL_SPLIT is then not used
CACHE_IMAGES: bool = True  # cache decoded images in CACHE_DIR (about 7 * IMAGE_SIZE^2 bytes each), shared by all runs
CACHE_DIR: str = "./.cache/images"  # may be deleted at any time
NUM_WORKERS: int = -1  # loader processes; -1: none on a CPU, where they would compete for its cores, else up to 8
MAX_SKIPPED: ClosedUnitInterval = 0.05  # share of unreadable images above which the run stops

# --- augmentation (a function of SEED, epoch and image) ---------------------------------------------------------------
CROP_SCALE: ClosedUnitInterval = 0.8  # smallest share of the area of a crop; zooming changes strokes; 1 = no crop
FLIP_PROB: ClosedUnitInterval = 0.5  # horizontal flip
GREY_PROB: ClosedUnitInterval = 0.35  # share of batches without colours, so that strokes count, not only the palette
REMIX_SHARE: ClosedUnitInterval = 0.25  # share of each batch's style groups redrawn into invented styles; 0 = none
DRAWN_SHARE: ClosedUnitInterval = 0.25  # share that are drawings in invented styles (docs/invented_styles.png)
DRAWN_STYLES: NonNegativeInt = 256  # invented styles to draw, once, in CACHE_DIR; 0 = none

# --- model ------------------------------------------------------------------------------------------------------------
MODEL_NAME: str = "vit_base_patch16_224"  # a timm model with a grid of patches; hf-hub:OWNER/NAME; local-dir:FOLDER
PRETRAINED: bool | str = True  # true: timm's weights; false: none; or a local .pth/.safetensors of this architecture
IMAGE_SIZE: NonNegativeInt = 0  # pixels of the square input; 0: as the backbone was trained
# resampler: learned queries attend to the patches; linear: one token per patch
SEQUENCE_HEAD: Literal["resampler", "linear"] = "resampler"
STYLE_WIDTH: PositiveInt = 128  # dimensions of the learned part of the style vector
# of the backbone's 5 feature maps, how many from the shallowest stay as pretrained; the style vector reads their Gram
# matrices too; not used from scratch
FROZEN_MAPS: NonNegativeInt = 4
DROP_PATH: ClosedUnitInterval = 0.0  # stochastic depth in the backbone, rate of its last block
DROPOUT: ClosedUnitInterval = 0.1  # in the heads
GRADIENT_CHECKPOINTING: bool = False  # less memory, about a third more time
COMPILE: bool = False  # torch.compile: pays off on a GPU in long runs

# --- loss: the weight of each part ------------------------------------------------------------------------------------
EMBED_MSE_WEIGHT: NonNegativeFloat = 1.0
EMBED_COSINE_WEIGHT: NonNegativeFloat = 1.0
POOLED_MSE_WEIGHT: NonNegativeFloat = 1.0
POOLED_COSINE_WEIGHT: NonNegativeFloat = 1.0
MASK_WEIGHT: NonNegativeFloat = 0.5
STYLE_WEIGHT: NonNegativeFloat = 1.0  # supervised contrast between styles
TEMPERATURE: PositiveFloat = 0.1  # of the contrast

# --- training ---------------------------------------------------------------------------------------------------------
EPOCHS: PositiveInt = 50
BATCH_SIZE: PositiveInt = 32  # images per step over all devices; smaller if the GPU runs out of memory
IMAGES_PER_STYLE: PositiveInt = 2  # of one style in a batch, the positives of its contrast; at least 2
LEARNING_RATE: NonNegativeFloat = 1e-4  # of the heads, at its peak
BACKBONE_LR_SCALE: NonNegativeFloat = 1.0  # the backbone's learning rate relative to that of the heads
MIN_LEARNING_RATE: NonNegativeFloat = 1e-6  # end of the cosine
WARMUP_STEPS: NonNegativeInt = 100  # optimizer steps of linear warmup
WEIGHT_DECAY: NonNegativeFloat = 0.05
CLIP_NORM: NonNegativeFloat = 1.0  # largest norm of the gradient; 0 = no limit
ACCUMULATION: PositiveInt = 1  # batches per optimizer step; the contrast sees one batch at a time
FREEZE_EPOCHS: NonNegativeInt = 0  # first epochs with a frozen backbone
EMA_DECAY: ClosedUnitInterval = 0.0  # moving average of the weights, validated and saved; 0 = off, 0.999 is usual
PRECISION: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU that supports it, else fp32
DEVICE: str = "auto"  # auto: a GPU if there is one; or cpu
SEED: int = 0

# --- run --------------------------------------------------------------------------------------------------------------
# model_epoch_N.pth, best.pth, last/, plots and results; an earlier run in it is moved, never overwritten
CHECKPOINT_DIR: str = "./checkpoints"
LOG_DIR: str = "./logs"  # one folder per run: TensorBoard and log.jsonl
RESUME: bool = False  # continue from CHECKPOINT_DIR/last, with the same weights as without a stop
SAVE_EPOCHS: PositiveInt = 10  # epochs between model_epoch_N.pth files; the last epoch is always written
SAVE_STEPS: PositiveInt = 200  # optimizer steps between saves of last/, which each epoch ends with too
LOG_STEPS: PositiveInt = 10  # optimizer steps between log entries
MAX_NONFINITE_STEPS: PositiveInt = 5  # consecutive steps with a non-finite loss or gradient that end the run
PATIENCE: NonNegativeInt = 0  # epochs without a better validation score after which training stops; 0 = never

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
