#!/usr/bin/env bash
# One training over all nodes and GPUs of a job; with the arguments of train.py:
#
#   sbatch --nodes 2 --gres gpu:4 --cpus-per-task 32 --time 4:00:00 slurm/train.sh --arch stn_slx --epochs 8
#
# At its time limit and when it is pre-empted it saves, requeues itself and goes on; after the loss of a node Slurm
# requeues it.
#SBATCH --job-name=stn
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

# Slurm runs a copy of this script from a folder of its own.
cd "$SLURM_SUBMIT_DIR"
[ -f slurm/env.sh ] || { echo "no slurm/env.sh in $PWD: run sbatch in the project's folder" >&2; exit 2; }
# shellcheck source=slurm/env.sh
source slurm/env.sh

if [ "${SLURM_RESTART_COUNT:-0}" -gt "$STN_MAX_RESTARTS" ]; then
  echo "requeued $SLURM_RESTART_COUNT times, more than STN_MAX_RESTARTS=$STN_MAX_RESTARTS" >&2
  exit 1
fi

nodes=$SLURM_JOB_NUM_NODES
mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
processes=${SLURM_GPUS_ON_NODE:-${SLURM_NTASKS_PER_NODE:-1}} # of a node
if [ -z "${SLURM_GPUS_ON_NODE:-}" ] || ! nvidia-smi >/dev/null 2>&1; then
  export ACCELERATE_USE_CPU=true # without it the launcher starts processes that do not know of each other
fi
# One launcher per node gets all that the job has there (srun 22.05 does not read SLURM_CPUS_PER_TASK).
if [[ $SLURM_JOB_CPUS_PER_NODE == *,* ]]; then
  echo "$SLURM_JOB_CPUS_PER_NODE CPUs: ask for as much on each node (--nodes, --ntasks-per-node, --gres)" >&2
  exit 2
fi
# shellcheck disable=SC2153
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_ON_NODE
unset SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU
# How long the launcher waits for its processes to save before it kills them; within --signal's 120 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=100

# bash runs a trap between two commands only, hence srun in the background. The signal goes to the step: a SIGTERM to
# srun would kill it. Launchers and trainers hear it together, and a trainer takes the repetition by its launcher calmly.
say() { echo "$(date '+%F %T') job $SLURM_JOB_ID: $*"; }
wish=
# shellcheck disable=SC2317 # called by traps
stop() {
  wish=$1
  heard=1
  say "$1, saving"
  scancel --signal=TERM "$SLURM_JOB_ID.0" || true
}
trap 'stop "time limit"' USR1
trap 'stop SIGTERM' TERM

# SLURM_NODEID is known on the node alone. Ports below 30000 are no ephemeral ones.
# shellcheck disable=SC2016
srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=1 \
  ${SLURM_GPUS_ON_NODE:+--gpus-per-node="$SLURM_GPUS_ON_NODE"} \
  bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' bash \
  --config_file configs/accelerate/nodes.yaml --num_machines "$nodes" --num_processes $((nodes * processes)) \
  --main_process_ip "${names[0]}" --main_process_port $((20000 + SLURM_JOB_ID % 10000)) \
  train.py "$@" &
step=$!
heard=1
while [ "$heard" ]; do # a trap ends wait, too
  heard=
  code=0
  wait "$step" || code=$?
done

# A pre-emption with a grace time tells the step alone, at first.
preempted() { [[ $(scontrol show job "$SLURM_JOB_ID") == *" PreemptTime="[0-9]* ]]; }

# What has finished in spite of a signal is finished. The requeue sends this script a SIGTERM.
if [ "$code" != 0 ] && [ "$wish" != SIGTERM ] && { [ "$wish" ] || preempted; }; then
  trap '' TERM
  say requeue
  scontrol requeue "$SLURM_JOB_ID"
fi
# The launcher knows no other code, and nodes that a failing one has taken along end with 143.
exit $((code != 0))
