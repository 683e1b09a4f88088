#!/bin/sh
# Any train.py on all GPUs of one or several machines. The arguments are the script and its flags.
#
#   sh recipes/torchrun.sh clip/train.py --batch_size 1024                         one machine, 8 GPUs
#   GPUS=1 sh recipes/torchrun.sh llava/train.py --data mine.jsonl                 one GPU
#   NODES=8 HOST=first-machine sh recipes/torchrun.sh vitp/train.py ...            on each of 8 machines
set -eu

GPUS=${GPUS:-8}
NODES=${NODES:-1}
PORT=${PORT:-29500}

fail() { echo "torchrun.sh: error: $*" >&2; exit 1; }
for pair in "GPUS=$GPUS" "NODES=$NODES" "PORT=$PORT"; do
  case ${pair#*=} in '' | 0* | *[!0-9]*) fail "$pair: expected a whole number above 0" ;; esac
done
[ "$#" -gt 0 ] || fail "no script given; for instance: sh recipes/torchrun.sh train.py --epochs 5"
[ -f "$1" ] || fail "$1: no such script; run this in the repository's root"

trap '' USR1  # Slurm sends it to all processes: the training saves and ends, and torchrun waits for it
if [ "$NODES" -eq 1 ]; then
  exec torchrun --standalone --nproc_per_node "$GPUS" "$@"
fi
[ -n "${HOST:-}" ] || fail "NODES=$NODES needs HOST, the name or address of the first machine, the same on all"
exec torchrun --nnodes "$NODES" --nproc_per_node "$GPUS" --rdzv_backend c10d --rdzv_id "${RUN:-train}" \
  --rdzv_endpoint "$HOST:$PORT" "$@"
