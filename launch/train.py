"""One training on this machine: a process per GPU, on a CPU one per core, never more than there are seeds.

Processes train seeds of their own: on two cores, two processes with one thread each train 1.15 to
1.38 times as fast as one with two (benchmarks/fused.py, 4 seeds). Must not know what is trained.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from stn.config.command_line import parse
from stn.config.seed_list import parse_seeds
from stn.runs.process import cores

ROOT = Path(__file__).resolve().parent.parent


def gpus() -> int:
    """GPUs that a process started here would see, without asking torch."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def command(arguments: list[str]) -> list[str]:
    """The command line that trains with these arguments."""
    asked = parse(arguments)
    seeds = sum(len(parse_seeds(config.train.seeds)) for config in asked.configs)
    most = asked.configs[0].train.processes or min(seeds, gpus() or cores())
    processes = 1 if asked.check or asked.list else most
    file = "one" if processes == 1 else "gpus" if gpus() else "cpu2"
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "configs" / "accelerate" / f"{file}.yaml"),
        "--num_processes",
        str(processes),
        str(ROOT / "train.py"),
        *arguments,
    ]


def train(arguments: list[str]) -> NoReturn:
    """Become the launcher, so that signals reach it as if it had been typed."""
    words = command(arguments)
    os.execv(words[0], words)
