# shellcheck shell=bash
# The only file that a site edits. Job scripts source it in the project's folder; source it before sbatch as well
# (. slurm/env.sh) for what sbatch itself reads from the environment.

# module load python/3.11 cuda/12

# On a login node, once: make .venv/ready. STN_VENV names an environment that lies elsewhere.
if [ ! -f "${STN_VENV:=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv}/bin/activate" ]; then
  echo "no environment in $STN_VENV: run 'make .venv/ready', or name it in slurm/env.sh" >&2
  return 1
fi
# shellcheck source=/dev/null
source "$STN_VENV/bin/activate"

# export STN_DATA=/shared/data          # CIFAR-10; MNIST ships with the code
# export WANDB_MODE=offline             # where compute nodes have no internet

# Read by sbatch:
# export SBATCH_PARTITION=gpu
# export SBATCH_ACCOUNT=project

: "${STN_MAX_RESTARTS:=20}"             # a job that has been requeued more often fails
