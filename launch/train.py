"""One training on this machine: a process per GPU, or per CPU core, but no more processes than seeds.

On two cores two processes with one thread each train 1.15 to 1.38 times as fast as one process with two threads
(benchmarks/fused.py, 4 seeds).
"""

import os
import sys
from pathlib import Path

from stn.config.command_line import parse
from stn.config.seed_list import parse_seeds
from stn.runs.process import cores

ROOT = Path(__file__).resolve().parent.parent


def gpus() -> int:
    """Return how many GPUs a process started here would see, without importing torch."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def command(arguments: list[str]) -> list[str]:
    """Return the command line of `accelerate launch` that trains with these arguments."""
    commands = parse(arguments)
    seeds = sum(len(parse_seeds(command.train.seeds)) for command in commands)
    wanted = commands[0].train.processes or min(seeds, gpus() or cores())
    processes = 1 if commands[0].check or commands[0].list else wanted
    file = "one" if processes == 1 else "gpus" if gpus() else "cpu2"
    options = ["--config_file", str(ROOT / "configs" / "accelerate" / f"{file}.yaml")]
    options += ["--num_processes", str(processes)]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, str(ROOT / "train.py"), *arguments]
