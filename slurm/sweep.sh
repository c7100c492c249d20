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
source "$STN_ROOT/slurm/env.sh"

[ $# -gt 0 ] || { echo "no sweep given: running configs/sweeps/smoke.yaml"; set -- "$STN_ROOT/configs/sweeps/smoke.yaml"; }
# -P: a folder launch or stn in the folder of the submission is somebody else's.
exec python -P -m launch sweep "$@" --on slurm
