#!/usr/bin/env bash
# One training over all nodes and GPUs of a job; takes the arguments of train.py:
#
#   sbatch --nodes 2 --gres gpu:4 --cpus-per-task 32 --time 4:00:00 slurm/train.sh --arch stn_slx --epochs 8
#
# At its time limit and on preemption it saves, requeues itself and resumes. After the loss of a node Slurm requeues it.
#SBATCH --job-name=stn
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

# A job that an array's task submits has the variables of that array as well: scontrol knows better.
if [[ ${SLURM_ARRAY_JOB_ID:-} && $(scontrol show job "$SLURM_JOB_ID") == *ArrayJobId=* ]]; then
  echo "error: every task of this array would train the same seeds; use slurm/sweep.sh, or --seeds 0-9 in one job" >&2
  exit 2
fi

# Slurm runs a copy of this file from a folder of its own: scontrol knows where the original is.
if [ -z "${STN_ROOT:-}" ]; then
  submitted=$(scontrol show job "${SLURM_JOB_ID:-}" 2>/dev/null | sed -n 's/^ *Command=//p') || true
  STN_ROOT=${submitted%%/slurm/train.sh*}
  [ -f "$STN_ROOT/slurm/env.sh" ] || STN_ROOT=${SLURM_SUBMIT_DIR:-$PWD}
fi
[ -f "$STN_ROOT/slurm/env.sh" ] || { echo "error: no slurm/env.sh in $STN_ROOT; set STN_ROOT to the project's folder" >&2; exit 2; }
set +u # what a site loads there often reads variables that are not set: modules, conda
# shellcheck source=slurm/env.sh
source "$STN_ROOT/slurm/env.sh"
set -u
cd "$SLURM_SUBMIT_DIR" # runs/ is there

if [ "${SLURM_RESTART_COUNT:-0}" -gt "$STN_MAX_RESTARTS" ]; then
  echo "requeued $SLURM_RESTART_COUNT times, more than STN_MAX_RESTARTS=$STN_MAX_RESTARTS" >&2
  exit 1
fi

nodes=$SLURM_JOB_NUM_NODES
mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
processes=${SLURM_GPUS_ON_NODE:-${SLURM_NTASKS_PER_NODE:-1}} # per node
if [ -z "${SLURM_GPUS_ON_NODE:-}" ] || ! timeout 60 nvidia-smi >/dev/null 2>&1; then
  [ -z "${SLURM_GPUS_ON_NODE:-}" ] || echo "warning: nvidia-smi finds none of the job's GPUs: training on CPUs" >&2
  export ACCELERATE_USE_CPU=true # without it the launcher starts independent trainings
fi
if [[ $SLURM_JOB_CPUS_PER_NODE == *,* ]]; then
  echo "$SLURM_JOB_CPUS_PER_NODE CPUs: request the same number on each node (--nodes, --ntasks-per-node, --gres)" >&2
  exit 2
fi
# One launcher per node gets all of the job's CPUs and GPUs there. srun would read from these variables what a single
# task was to have: CPUs from 23.11 on, GPUs from 24.05 on.
unset SLURM_CPUS_PER_TASK SLURM_CPUS_PER_GPU SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU
unset SLURM_TRES_PER_TASK SLURM_TRES_BIND
# Seconds that the launcher gives its processes to save before it kills them; within --signal's 120 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=100

# bash runs a trap only between two commands, so srun runs in the background. The signal goes to the step: a SIGTERM to
# srun would kill it. Launchers and trainers receive it together; a trainer ignores the repetition by its launcher.
say() { echo "$(date '+%F %T') job $SLURM_JOB_ID: $*"; }
stop_reason=
# shellcheck disable=SC2317 # called by traps
stop() {
  stop_reason=$1
  signalled=1
  say "$1, saving"
  scancel --signal=TERM "$SLURM_JOB_ID.0" || true
}
trap 'stop "time limit"' USR1
trap 'stop SIGTERM' TERM

# SLURM_NODEID is set only on the node. Ports below 30000 are not ephemeral. Without --export srun inherits sbatch's.
# shellcheck disable=SC2016
srun --export=ALL --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" \
  --kill-on-bad-exit=1 ${SLURM_GPUS_ON_NODE:+--gpus-per-node="$SLURM_GPUS_ON_NODE"} \
  bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' bash \
  --config_file "$STN_ROOT/configs/accelerate/nodes.yaml" --num_machines "$nodes" --num_processes $((nodes * processes)) \
  --main_process_ip "${names[0]}" --main_process_port $((20000 + SLURM_JOB_ID % 10000)) \
  "$STN_ROOT/train.py" "$@" &
step=$!
signalled=1
while [ "$signalled" ]; do # a trap ends wait as well
  signalled=
  code=0
  wait "$step" || code=$?
done

# Preemption with a grace time signals only the step at first.
preempted() { [[ $(scontrol show job "$SLURM_JOB_ID") == *" PreemptTime="[0-9]* ]]; }

# A training that finished despite the signal is not requeued. The requeue sends this script a SIGTERM.
if [ "$code" != 0 ] && [ "$stop_reason" != SIGTERM ] && { [ "$stop_reason" ] || preempted; }; then
  trap '' TERM
  say requeue
  scontrol requeue "$SLURM_JOB_ID"
fi
# The launcher's only failure code is 1; nodes that are ended because another one failed return 143.
exit $((code != 0))
