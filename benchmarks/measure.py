"""What the benchmarks share: what they ran on, how they refuse bad input and keep a record."""

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import psutil
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # stn is found from wherever this is started

from launch.train import ROOT
from stn.config.command_line import fail
from stn.runs.process import cores
from stn.runs.provenance import commit

CORES = cores()
DISTURBED = 0.1
"""Cores that others used meanwhile. Threads wait for each other, so a little costs several times as much."""
console = Console(width=None if sys.stdout.isatty() else 132, highlight=False, markup=False)


class Parser(argparse.ArgumentParser):
    def __init__(self, text: str | None) -> None:
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        self.add_argument("--json", type=_writable, metavar="FILE", help="write everything there")

    def error(self, message: str) -> NoReturn:
        fail(message)


def _writable(text: str) -> Path:
    """Found out before hours are spent on what is to be written."""
    path = Path(text)
    existed = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write '{text}': {error.strerror}") from None
    if not existed:
        path.unlink()
    return path


def positive(text: str) -> int:
    if not text.strip().isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return int(text)


def names_from(known: Iterable[str]) -> Callable[[str], list[str]]:
    """An argument type: some of the known names, with commas between."""

    def parse(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown '{unknown[0]}'; known are {', '.join(known)}")
        return list(dict.fromkeys(text.split(",")))

    return parse


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(gpu: str | None) -> dict[str, Any]:
    """What a record says of the code and of what it ran on; to be called before the measurements."""
    return {
        "date": str(date.today()),
        **commit(),
        "cpu": _cpu(),
        "cores": CORES,
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "torch": version("torch"),
        "command": shlex.join(["python", *sys.argv]),
    }


def others_s() -> float:
    """CPU seconds of everything on this machine but this process and its children that have ended."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - sum(os.times()[:4])


def launched(repeat: int, *words: str) -> dict[str, float]:
    """Median seconds of `python -m launch`, and the largest MB of whatever this process has started so far."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "launch", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": round(statistics.median(seconds), 2), "mb": round(kilobytes / 1024)}


def save(path: Path | None, record: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n")
        console.print(f"written to {path}")
