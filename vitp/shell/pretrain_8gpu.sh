#!/bin/sh
# pretrain.sh on eight GPUs: 4 samples at a time on each, 128 in an optimizer step. DEEPSPEED= (empty) leaves it out.
export GPUS=${GPUS:-8} PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-4} BATCH_SIZE=${BATCH_SIZE:-128}
export DEEPSPEED=${DEEPSPEED-zero_stage2.json}
exec sh "$(dirname "$0")/pretrain.sh" "$@"
