#!/bin/sh
# Visual instruction pretraining with ViTP's recipe. Every word after the script's name goes to vitp/train.py.
#
#   MODEL=models/InternVL2_5-1B DATA_PATH=data/meta.json GPUS=8 BATCH_SIZE=128 sh vitp/shell/pretrain.sh
#
# Or edit the settings below, in this file or in a copy of it in the repository. Paths are relative to the working folder
# or to the repository. BATCH_SIZE is of an optimizer step over all GPUs: PER_DEVICE_BATCH_SIZE x GPUS x accumulation.
# PER_DEVICE_BATCH_SIZE=auto is 4 where that divides it, else 1. DEEPSPEED=zero_stage2.json shards the optimizer.
# DRY_RUN=1 only prints the command.
set -eu

MODEL=${MODEL:-models/InternVL2_5-1B}
DATA_PATH=${DATA_PATH:-data/meta.json}
OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/$(basename "$0" .sh)}
GPUS=${GPUS:-8}
BATCH_SIZE=${BATCH_SIZE:-$GPUS}
PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}

fail() { echo "$(basename "$0"): error: $*" >&2; exit 1; }
check_number() {
  case $2 in '' | 0* | *[!0-9]*) fail "$1=$2: expected a whole number above 0" ;; esac
}
find_path() { if [ ! -e "$1" ] && [ -e "$REPOSITORY/$1" ]; then echo "$REPOSITORY/$1"; else echo "$1"; fi; }

REPOSITORY=$(cd "$(dirname "$0")" && pwd)
while [ ! -f "$REPOSITORY/vitp/train.py" ]; do
  [ "$REPOSITORY" != / ] || fail "no vitp/train.py above $(dirname "$0"); keep the script in the repository"
  REPOSITORY=$(dirname "$REPOSITORY")
done
check_number GPUS "$GPUS"
check_number BATCH_SIZE "$BATCH_SIZE"
[ "$PER_DEVICE_BATCH_SIZE" != auto ] || PER_DEVICE_BATCH_SIZE=$((BATCH_SIZE % (4 * GPUS) ? 1 : 4))
check_number PER_DEVICE_BATCH_SIZE "$PER_DEVICE_BATCH_SIZE"
TOGETHER=$((PER_DEVICE_BATCH_SIZE * GPUS))
BELOW=$((BATCH_SIZE / TOGETHER * TOGETHER))
[ "$BATCH_SIZE" -ge "$TOGETHER" ] ||
  fail "BATCH_SIZE=$BATCH_SIZE is below $PER_DEVICE_BATCH_SIZE x $GPUS GPUs; the least is $TOGETHER"
[ "$BATCH_SIZE" -eq "$BELOW" ] ||
  fail "BATCH_SIZE=$BATCH_SIZE is no multiple of $PER_DEVICE_BATCH_SIZE x $GPUS GPUs;" \
    "the nearest are $BELOW and $((BELOW + TOGETHER))"
MODEL=$(find_path "$MODEL")
DATA_PATH=$(find_path "$DATA_PATH")
[ -f "$MODEL/config.json" ] ||
  fail "MODEL=$MODEL: no model's folder (no config.json in it)." \
    "A released one: hf download OpenGVLab/InternVL2_5-1B --local-dir models/InternVL2_5-1B"
[ -f "$DATA_PATH" ] || fail "DATA_PATH=$DATA_PATH: no such file"

set -- torchrun --standalone --nproc_per_node "$GPUS" "$REPOSITORY/vitp/train.py" \
  --model_name_or_path "$MODEL" \
  --meta_path "$DATA_PATH" \
  --output_dir "$OUTPUT_DIR" \
  --per_device_train_batch_size "$PER_DEVICE_BATCH_SIZE" \
  --gradient_accumulation_steps "$((BATCH_SIZE / TOGETHER))" \
  --max_steps 8000 \
  --learning_rate 2e-5 \
  --force_image_size 448 \
  --max_dynamic_patch 6 \
  --drop_path_rate 0.1 \
  --save_steps 500 \
  --activation_checkpointing \
  ${DEEPSPEED:+--deepspeed "$DEEPSPEED"} \
  "$@"
echo "$@"
[ -n "${DRY_RUN:-}" ] || exec "$@"
