"""One training on this machine: a process per GPU, or per free CPU core, but no more processes than seeds.

On two cores two processes with one thread each train 1.15 to 1.38 times as fast as one process with two threads
(benchmarks/fused.py, 4 seeds).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from stn.config.command_line import parse
from stn.config.resolve import resolve_all
from stn.config.schema import Config
from stn.config.seed_list import parse_seeds
from stn.config.source import SOURCE, TRAIN
from stn.runs.cores import cores, free_cores
from stn.runs.files import read_json
from stn.runs.trials import build_trials, group_by_run
from stn.tracking.console import say

DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
"""Device files in /dev of NVIDIA, WSL2 and ROCm."""
ANSWER_S = 120
"""Seconds in which a command must have counted the GPUs."""


def gpus() -> int:
    """Return how many GPUs a process started here would see, without importing torch."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return 0
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if (visible := os.environ.get(variable)) is not None:
            return len([name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")])
    return _count_gpus()


@cache
def _count_gpus() -> int:
    """Ask the driver's own tool, which knows of containers, WSL2 and MIG; torch where there is a device but no tool."""
    if tool := shutil.which("nvidia-smi"):
        listed = _answer(tool, "--list-gpus")
        return len([line for line in listed.splitlines() if line.startswith("GPU ")])
    if any(found for pattern in DEVICES for found in Path("/dev").glob(pattern)):
        counted = _answer(sys.executable, "-c", "import torch; print(torch.cuda.device_count())").strip()
        return int(counted) if counted.isdigit() else 0
    return 0


def _answer(*words: str) -> str:
    """Return the output of a command that counts GPUs, nothing if it fails; ValueError if a driver makes it hang."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{Path(words[0]).name} does not answer within {ANSWER_S} s; to train without asking it, set "
            "CUDA_VISIBLE_DEVICES=0,1 or whichever GPUs there are, or ACCELERATE_USE_CPU=true"
        ) from None
    return "" if done.returncode else done.stdout


def _processes_before(commands: Sequence[Config], most: int) -> int | None:
    """Return by how many processes these seeds were divided when they stopped; among others they would begin anew."""
    found: list[tuple[float, int]] = []
    other = 0
    with suppress(ValueError, OSError):  # the training will say what is wrong
        configs = resolve_all(commands)
        trials = build_trials(configs)
        for block in (block for group in group_by_run(trials) for block in group[0].run.blocks()):
            n, saved = read_json(block.env).get("world_size"), list(block.checkpoints.glob("*/step-*.safetensors"))
            if isinstance(n, int) and 0 < n <= len(trials) and saved:
                parts = [build_trials(configs, i, n) for i in range(n)]
                if block.path in {trial.run.path for part in parts for trial in part}:
                    found += [(max(path.stat().st_mtime for path in saved), n)] * (n <= most)
                    other = n
    if not found:
        if other:
            say(f"unfinished seeds of {other} processes begin anew; --processes {other} would resume them")
        return None
    say(f"as many processes as before: {max(found)[1]}, so that unfinished seeds resume")
    return max(found)[1]


def environment() -> dict[str, str]:
    """Return a launcher's environment: its processes have 100 s to save, not torch's 30; Slurm warns 120 s before."""
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "100"} | os.environ


def command(arguments: list[str]) -> list[str]:
    """Return the command line of `accelerate launch` that trains with these arguments."""
    commands = parse(arguments)
    seeds = sum(len(parse_seeds(command.train.seeds)) for command in commands)
    processes = 1 if commands[0].check or commands[0].list else commands[0].train.processes
    if not processes:
        anew = seeds == 1 or commands[0].checkpoint.retrain
        before = None if anew else _processes_before(commands, gpus() or cores())
        processes = before or (1 if seeds == 1 else min(seeds, gpus() or free_cores(say)))
    file = "one" if processes == 1 else "gpus" if gpus() else "cpu2"
    options = ["--config_file", str(SOURCE / "configs" / "accelerate" / f"{file}.yaml")]
    options += ["--num_processes", str(processes)]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, str(TRAIN), *arguments]
