#!/bin/bash
# Prints a sweep's status and writes its report, as a job after its jobs: sbatch slurm/report.sh runs/NAME
#SBATCH --job-name=stn-report
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=30
set -euo pipefail

# Slurm runs a copy of this file from a folder of its own: scontrol knows where the original is.
if [ -z "${STN_ROOT:-}" ]; then
  submitted=$(scontrol show job "${SLURM_JOB_ID:-}" 2>/dev/null | sed -n 's/^ *Command=//p') || true
  STN_ROOT=${submitted%%/slurm/report.sh*}
  [ -f "$STN_ROOT/slurm/env.sh" ] || STN_ROOT=${SLURM_SUBMIT_DIR:-$PWD}
fi
[ -f "$STN_ROOT/slurm/env.sh" ] || { echo "error: no slurm/env.sh in $STN_ROOT; set STN_ROOT to the project's folder" >&2; exit 2; }
export STN_ROOT PYTHONPATH="$STN_ROOT${PYTHONPATH:+:$PYTHONPATH}"
set +u # what a site loads there often reads variables that are not set: modules, conda
source "$STN_ROOT/slurm/env.sh"
set -u

python -P -m launch status "$@"
python -P -m launch report "$@"
