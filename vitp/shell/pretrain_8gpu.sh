#!/bin/sh
# pretrain.sh on eight GPUs: 128 samples in an optimizer step, 4 at a time on each, or 1 where 4 do not divide BATCH_SIZE.
set -a  # what is set here or in a copy beside it, such as MODEL and DATA_PATH, reaches pretrain.sh
GPUS=${GPUS:-8}
BATCH_SIZE=${BATCH_SIZE:-128}
PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-auto}
DEEPSPEED=${DEEPSPEED-zero_stage2.json}  # empty: none
OUTPUT_DIR=${OUTPUT_DIR:-work_dirs/$(basename "$0" .sh)}
exec sh "$(dirname "$0")/pretrain.sh" "$@"
