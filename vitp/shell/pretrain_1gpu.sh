#!/bin/sh
# pretrain.sh on one GPU: 4 samples at a time, 128 in an optimizer step.
export GPUS=${GPUS:-1} PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-4} BATCH_SIZE=${BATCH_SIZE:-128}
exec sh "$(dirname "$0")/pretrain.sh" "$@"
