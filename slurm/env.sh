# shellcheck shell=bash
# The only file that a site edits. Job scripts source it on the node, and 'python -m launch sweep --on slurm' reads its
# SBATCH_* variables before it submits. sbatch slurm/train.sh is read by sbatch alone: name the partition there, or source
# this file before (. slurm/env.sh).

# module load python/3.11 cuda/12

# The project's environment; 'make .venv/ready' creates .venv. Run it once, on a login node. One of conda's will do as well.
# STN_VENV=/shared/environments/stn
: "${STN_VENV:=$(dirname "${BASH_SOURCE[0]}")/../.venv}"
if [ -f "$STN_VENV/bin/activate" ]; then
  # shellcheck source=/dev/null
  source "$STN_VENV/bin/activate"
elif [ -x "$STN_VENV/bin/python" ]; then # conda's environments have no such script of their own
  export PATH="$STN_VENV/bin:$PATH"
else
  echo "no environment in $STN_VENV: run 'make .venv/ready', or set STN_VENV in slurm/env.sh" >&2
  return 1
fi

# export STN_DATA=/shared/data        # CIFAR-10; MNIST ships with the code
# export WANDB_MODE=offline           # if nodes have no internet
# export SBATCH_PARTITION="${SBATCH_PARTITION:-gpu}" # for sweeps whose file has no slurm: {partition: ...}
# export SBATCH_ACCOUNT="${SBATCH_ACCOUNT:-project}"

: "${STN_MAX_RESTARTS:=20}"           # a job that is requeued more often fails
