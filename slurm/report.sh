#!/bin/bash
# Prints a sweep's status and writes its report, as a job after its jobs: sbatch slurm/report.sh runs/NAME
#SBATCH --job-name=stn-report
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=30
set -euo pipefail

STN_ROOT=${STN_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
[ -f "$STN_ROOT/slurm/env.sh" ] || { echo "error: no slurm/env.sh in $STN_ROOT; submit from the project's folder, or set STN_ROOT" >&2; exit 2; }
export STN_ROOT PYTHONPATH="$STN_ROOT${PYTHONPATH:+:$PYTHONPATH}"
source "$STN_ROOT/slurm/env.sh"

python -m launch status "$@"
python -m launch report "$@"
