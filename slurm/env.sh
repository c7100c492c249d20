# shellcheck shell=bash
# The only file that a site edits. Job scripts source it in the project's folder. SBATCH_* variables, which sbatch reads
# itself, take effect only if you source it before you submit: . slurm/env.sh

# module load python/3.11 cuda/12

# The project's environment; 'make .venv/ready' creates .venv. Run it once, on a login node.
# STN_VENV=/shared/environments/stn
: "${STN_VENV:=$(dirname "${BASH_SOURCE[0]}")/../.venv}"
if [ ! -f "$STN_VENV/bin/activate" ]; then
  echo "no environment in $STN_VENV: run 'make .venv/ready', or set STN_VENV in slurm/env.sh" >&2
  return 1
fi
# shellcheck source=/dev/null
source "$STN_VENV/bin/activate"

# export STN_DATA=/shared/data        # CIFAR-10; MNIST ships with the code
# export WANDB_MODE=offline           # if nodes have no internet
# export SBATCH_PARTITION=gpu         # read by sbatch
# export SBATCH_ACCOUNT=project

: "${STN_MAX_RESTARTS:=20}"           # a job that is requeued more often fails
