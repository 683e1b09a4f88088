"""The style encoder's settings. Edit here, or override one on the command line: `python train.py --epochs 5`."""

# --- data -------------------------------------------------------------------------------------------------------------
DATA_DIR: str = "./data"  # holds <style>/<name>_img.png and beside each its _embed.pt, _pooled.pt, _mask.pt
IGNORE_TARGETS: list[str] = []  # targets not to learn though the files are there: any of embed, pooled, mask
VAL_SPLIT: float = 0.1  # share of each style's images kept for validation; equal names stay on one side
VAL_STYLES: list[str] = []  # styles held out whole for validation, by folder name; VAL_SPLIT is then not used
CACHE_IMAGES: bool = True  # keep decoded images in CACHE_DIR (about 3 * IMAGE_SIZE^2 bytes each), shared by all runs
CACHE_DIR: str = "./.cache/images"  # may be deleted at any time; it is made again
NUM_WORKERS: int = -1  # loader processes; -1: none on a CPU, where they only take its cores, else up to 8
MAX_SKIPPED: float = 0.05  # share of unreadable images above which the run stops

# --- augmentation (drawn anew each epoch from SEED, epoch and image) --------------------------------------------------
CROP_SCALE: float = 0.8  # smallest share of the area that a crop keeps; zooming in changes strokes; 1 = no crop
FLIP_PROB: float = 0.5  # mirrored left to right
GREY_PROB: float = 0.5  # share of batches without colours, so that strokes count and not the palette alone
REMIX_SHARE: float = 0.5  # share of each batch's style groups redrawn into invented styles; 0 = none

# --- model ------------------------------------------------------------------------------------------------------------
MODEL_NAME: str = "vit_base_patch16_224"  # any timm model with intermediate features
PRETRAINED: bool | str = True  # true: timm's weights; false: none; or a local .pth/.safetensors of this architecture
IMAGE_SIZE: int = 0  # pixels of the square input; 0: the backbone's own
SEQUENCE_HEAD: str = "resampler"  # resampler: learned queries read the patches; linear: one token per patch
STYLE_WIDTH: int = 128  # numbers in the style vector
DROP_PATH: float = 0.0  # stochastic depth in the backbone, share at its last block
DROPOUT: float = 0.1  # in the heads
GRADIENT_CHECKPOINTING: bool = False  # less memory, about a third more time
COMPILE: bool = False  # torch.compile: worth it on a GPU and for long runs

# --- loss: the weight of each part ------------------------------------------------------------------------------------
EMBED_MSE_WEIGHT: float = 1.0
EMBED_COSINE_WEIGHT: float = 1.0
POOLED_MSE_WEIGHT: float = 1.0
POOLED_COSINE_WEIGHT: float = 1.0
MASK_WEIGHT: float = 0.5
STYLE_WEIGHT: float = 1.0  # supervised contrast between styles
TEMPERATURE: float = 0.1  # of the contrast

# --- training ---------------------------------------------------------------------------------------------------------
EPOCHS: int = 50
BATCH_SIZE: int = 32  # images per step over all devices; smaller if the GPU runs out of memory
IMAGES_PER_STYLE: int = 4  # of one style in a batch, so that every image has others of its style to agree with
LEARNING_RATE: float = 1e-4  # of the heads, at its peak
BACKBONE_LR_SCALE: float = 1.0  # the backbone's learning rate as a share of the heads'
MIN_LEARNING_RATE: float = 1e-6  # where the cosine ends
WARMUP_STEPS: int = 100  # optimizer steps of linear warmup
WEIGHT_DECAY: float = 0.05
CLIP_NORM: float = 1.0  # largest norm of the whole gradient; 0 = no limit
ACCUMULATION: int = 1  # batches per optimizer step; the contrast sees one batch at a time
FREEZE_EPOCHS: int = 0  # first epochs in which only the heads learn
EMA_DECAY: float = 0.0  # moving average of the weights, used for validation and model files; 0 = off, 0.999 is usual
PRECISION: str = "auto"  # fp32, bf16 or fp16; auto: bf16 on a GPU that has it, else fp32
DEVICE: str = "auto"  # auto: a GPU if there is one; or cpu
SEED: int = 0

# --- run --------------------------------------------------------------------------------------------------------------
# model_epoch_N.pth, best.pth, last/, plots and results; an older run in it is moved aside, never overwritten
CHECKPOINT_DIR: str = "./checkpoints"
LOG_DIR: str = "./logs"  # one folder per run: TensorBoard and log.jsonl
RESUME: bool = False  # go on from CHECKPOINT_DIR/last, with the same weights as if never stopped
SAVE_EPOCHS: int = 10  # epochs between model_epoch_N.pth files; the last epoch is always written
SAVE_STEPS: int = 200  # optimizer steps between writes of last/, besides one at the end of each epoch
LOG_STEPS: int = 10  # optimizer steps between log entries
MAX_NONFINITE_STEPS: int = 5  # in a row, their loss or gradient not finite, that end the run; fewer are left out
PATIENCE: int = 0  # epochs without a better validation score after which training stops; 0 = never

# `python train.py --demo`: drawn sample data and a small network, minutes on two CPU cores, no download.
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
