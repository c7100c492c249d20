#!/bin/bash
# A whole sweep: sbatch slurm/sweep.sh [SWEEP.yaml [--max-parallel N ...]]
# Expands the sweep, submits its jobs as arrays and a report job after them. Submit it again to resume.
#SBATCH --job-name=stn-sweep
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=30
#SBATCH --output=slurm-sweep-%j.log
#SBATCH --no-requeue
set -euo pipefail

# Slurm runs a copy of this file from a folder of its own: scontrol knows where the original is.
if [ -z "${STN_ROOT:-}" ]; then
  submitted=$(scontrol show job "${SLURM_JOB_ID:-}" 2>/dev/null | sed -n 's/^ *Command=//p') || true
  STN_ROOT=${submitted%%/slurm/sweep.sh*}
  [ -f "$STN_ROOT/slurm/env.sh" ] || STN_ROOT=${SLURM_SUBMIT_DIR:-$PWD}
fi
[ -f "$STN_ROOT/slurm/env.sh" ] || { echo "error: no slurm/env.sh in $STN_ROOT; set STN_ROOT to the project's folder" >&2; exit 2; }
export STN_ROOT PYTHONPATH="$STN_ROOT${PYTHONPATH:+:$PYTHONPATH}"
set +u # what a site loads there often reads variables that are not set: modules, conda
source "$STN_ROOT/slurm/env.sh"
set -u

# sbatch's options hold for this job alone. The sweep's jobs get its account and partition where the site's variables
# name none, but not the default partition: a site may send jobs elsewhere by their GPUs or their time.
inherit() {
  if [ -z "${!1:-}" ]; then
    export "$1=$2"
    echo "jobs get $1=$2 from this job, unless the sweep file names another"
  elif [[ ",${!1}," != *",$2,"* ]]; then
    echo "jobs get $1=${!1} from slurm/env.sh or the environment, not $2 from this job"
  fi
}
[ -z "${SLURM_JOB_ACCOUNT:-}" ] || inherit SBATCH_ACCOUNT "$SLURM_JOB_ACCOUNT"
partition=${SLURM_JOB_PARTITION:-}
if [[ $partition && $(scontrol show partition "$partition" 2>/dev/null) != *Default=YES* ]]; then
  inherit SBATCH_PARTITION "$partition"
fi
if [ "${SLURM_GPUS_ON_NODE:-}${SLURM_JOB_GPUS:-}" ]; then
  echo "warning: this job holds GPUs and does not use them; jobs get theirs by 'gpus: 1' in the sweep file" >&2
fi

[ $# -gt 0 ] || { echo "no sweep given: running configs/sweeps/smoke.yaml"; set -- "$STN_ROOT/configs/sweeps/smoke.yaml"; }
# -P: a folder launch or stn in the folder of the submission is somebody else's.
exec python -P -m launch sweep "$@" --on slurm
