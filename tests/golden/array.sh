#!/bin/bash
# Sweep two: task i trains line i (from 0) of jobs-0.txt.
#SBATCH --job-name=two
#SBATCH --array=0-3%3
#SBATCH --output=HERE/runs/two/sweep/logs/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --chdir=HERE
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=120
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --gres=gpu:1
#SBATCH --mem=8G
set -eo pipefail
export STN_ROOT=ROOT
export PYTHONPATH="$STN_ROOT${PYTHONPATH:+:$PYTHONPATH}"
source "$STN_ROOT/slurm/env.sh"
# exec: Slurm's warning before the time limit reaches the process that replaces this shell.
exec python -P -m launch task HERE/runs/two/sweep HERE/runs/two/sweep/slurm/x/jobs-0.txt "$SLURM_ARRAY_TASK_ID" --gpus 1 --cpus 4
