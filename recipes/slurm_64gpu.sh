#!/bin/sh
#SBATCH --job-name=train
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# 64 GPUs under Slurm, one torchrun on each machine, which gets all arguments:
#
#   sbatch recipes/slurm_64gpu.sh clip/train.py --batch_size 8192 --precision bf16
#   sbatch --nodes=2 recipes/slurm_64gpu.sh vitp/train.py --deepspeed zero_stage2.json ...
#
# 120 s before the time limit Slurm sends SIGUSR1 to this script, which passes it on: the training saves the state of its
# next logged step and ends, and the job is queued again and resumes. Give more seconds where LOG_STEPS steps, or a
# validation, and a save take longer. BLIP2-gated needs --training.save_last. Checkpoints must be on a disk shared by all
# machines, CACHE_DIR on one of each machine.
set -eu

cd "${SLURM_SUBMIT_DIR:-.}"
HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HOST NODES="$SLURM_NNODES" GPUS="${SLURM_GPUS_ON_NODE:-8}" RUN="$SLURM_JOB_ID"
export PORT="${PORT:-$((20000 + SLURM_JOB_ID % 10000))}"

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  case $1 in
    vitp/* | llava/*) set -- "$@" --resume_from_checkpoint true ;;
    blip2_gated/*) set -- "$@" --training.resume ;;
    *) set -- "$@" --resume ;;
  esac
fi

warned=
srun sh recipes/torchrun.sh "$@" &
training=$!
trap 'warned=yes; kill -USR1 $training' USR1
code=0
wait $training || code=$?
while kill -0 $training 2>/dev/null; do code=0; wait $training || code=$?; done  # the signal ends a wait, not srun
if [ -n "$warned" ] && [ "$code" -ne 0 ]; then  # 0: it has reached its end anyway
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
