#!/bin/sh
#SBATCH --job-name=train
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
# 64 GPUs under Slurm, one torchrun on each machine, which gets all arguments:
#
#   sbatch recipes/slurm_64gpu.sh clip/train.py --batch_size 8192 --precision bf16
#   sbatch --nodes=2 recipes/slurm_64gpu.sh vitp/train.py --deepspeed zero_stage2.json ...
#
# After the time limit, the same command with --resume (style, clip), --training.resume (blip2, with
# --training.save_last) or --resume_from_checkpoint true (vitp, llava) resumes. Checkpoints and image caches must be on a
# disk shared by all machines.
set -eu

cd "${SLURM_SUBMIT_DIR:-.}"
HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HOST NODES="$SLURM_NNODES" GPUS="${SLURM_GPUS_ON_NODE:-8}" RUN="$SLURM_JOB_ID"
export PORT="${PORT:-$((20000 + SLURM_JOB_ID % 10000))}"
exec srun sh recipes/torchrun.sh "$@"
