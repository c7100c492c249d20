"""What the benchmarks share: the machine's description, argument checks, timing and the record."""

import argparse
import json
import lzma
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import psutil
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that stn is found from any working directory

from stn.config.command_line import fail
from stn.config.source import SOURCE as ROOT
from stn.runs.cores import cores
from stn.runs.process import commit

CORES = cores()
DISTURBED = 0.1
"""Cores used by other processes above which a measurement counts as disturbed: threads wait for the slowest one."""
VECTOR = re.compile(r"(avx|amx|asimd|sve)\w*|fma|sme\d?|bf16|i8mm")
console = Console(width=None if sys.stdout.isatty() else 132, highlight=False, markup=False)


class Parser(argparse.ArgumentParser):
    def __init__(self, text: str | None) -> None:
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        self.add_argument("--json", type=_writable, metavar="FILE", help="write the whole record to FILE")

    def error(self, message: str) -> NoReturn:
        fail(message)


def _writable(text: str) -> Path:
    """Return a path that can be written; checked before hours are spent on measuring."""
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
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number above 0")
    return int(text)


def names_from(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return an argument type: a comma-separated list of known names."""

    def parse(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown '{unknown[0]}'; known are {', '.join(known)}")
        return list(dict.fromkeys(text.split(",")))

    return parse


def _cpuinfo(*keys: str) -> str:
    """Return the first processor's entry under one of these keys, which differ between kinds of CPU (Linux)."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(keys)), "")


def vector_instructions(flags: str) -> list[str]:
    """Return those of a CPU's flags that decide how fast a network trains on it."""
    return [flag for flag in flags.split() if VECTOR.fullmatch(flag)]


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {package: version(package) for package in packages if find_spec(package)}
    return {"python": platform.python_version(), **found}


def machine(gpu: str | None, packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return a record's entries on code, machine and packages. Call it before the measurements."""
    return {
        "date": str(date.today()),
        **commit(),
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "vector_instructions": vector_instructions(_cpuinfo("flags", "Features")),
        "cores": CORES,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "torch": version("torch"),
        "versions": _versions(("torch", "torchvision", "numpy", "accelerate", *packages)),
        "command": shlex.join(["python", *(Path(w).name if Path(w).is_absolute() else w for w in sys.argv)]),
    }


def others_s() -> float:
    """Return the CPU seconds used on this machine, without this process and its children that have ended."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - sum(os.times()[:4])


def launched(repeat: int, *words: str) -> dict[str, float]:
    """Return the median seconds of `python -m launch`, and the peak MB of any child process so far."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "launch", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": round(statistics.median(seconds), 2), "mb": round(kilobytes / 1024)}


def unpack(folder: str) -> None:
    """Write MNIST into a folder as torchvision unpacks it."""
    raw = Path(folder) / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (ROOT / "stn" / "data" / "mnist_xz").glob("*.xz"):
        (raw / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))


def save(path: Path | None, record: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n")
        console.print(f"written to {path}")
