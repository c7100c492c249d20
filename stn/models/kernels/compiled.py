"""The C functions of cpu.c, built by this machine's compiler when they are first needed, and kept for the next time.

They share PyTorch's pool of threads: those of a second OpenMP would wait for the same cores.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VECTOR = 8
"""Channels that cpu.c takes at once."""
_SOURCE = Path(__file__).with_name("cpu.c")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-trapping-math", "-fPIC")
"""Operations are rounded one by one, none is fused with another."""
_SECONDS = 60
"""For a compiler that hangs; it takes 0.3."""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


@cache
def _openmp() -> str:
    """Return the path of the OpenMP library that PyTorch has loaded; an empty text if there is none."""
    paths = sorted({line.split()[-1] for line in _lines("/proc/self/maps")})
    return next((path for path in paths if Path(path).name.startswith(("libgomp", "libiomp", "libomp"))), "")


def _instruction_set() -> str:
    """Return what code for this CPU depends on: a home directory is shared by machines."""
    return next((line for line in _lines("/proc/cpuinfo") if line.startswith(("flags", "Features"))), "")


def _build(path: Path, compiler: list[str], flags: list[str]) -> None:
    """Compile, then link without any library: what is missing, Python and PyTorch have loaded."""
    compiled = str(path.with_suffix(".o"))
    for words in ([*flags, "-c", str(_SOURCE), "-o", compiled], ["-shared", "-nostdlib", compiled, "-o", str(path)]):
        done = subprocess.run([*compiler, *words], capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise OSError(f"{compiler[0]} cannot build {_SOURCE.name}: {(done.stderr.splitlines() or ['?'])[0]}")


def _keep(built: Path, kept: Path) -> None:
    """Keep a library for later processes; without a home, or on a full disk, they build it again."""
    beside = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(built.read_bytes())
        beside.replace(kept)
    except OSError:
        with suppress(OSError):
            beside.unlink()


def _load(compiler: list[str], flags: list[str]) -> ctypes.CDLL:
    """Load the library that an earlier process has built, or build it."""
    built_from = "\n".join([_SOURCE.read_text(), *compiler, *flags, platform.machine(), _instruction_set()])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stn-harness"
    kept = folder / f"cpu-{hashlib.sha256(built_from.encode()).hexdigest()[:16]}.so"
    with suppress(OSError):  # it is not there
        return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as empty:
        built = Path(empty, kept.name)
        _build(built, compiler, flags)
        functions = ctypes.CDLL(str(built))
        _keep(built, kept)
    return functions


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """Return the functions, or None and why there are none."""
    try:
        flags = [*_FLAGS]
        if _openmp():
            ctypes.CDLL(_openmp(), mode=ctypes.RTLD_GLOBAL)  # its names are looked up when the functions are loaded
            flags.append("-fopenmp")
        return _load(shlex.split(os.environ.get("CC") or "cc"), flags), ""
    except FileNotFoundError as error:
        return None, f"there is no C compiler ({error.filename})"
    except subprocess.TimeoutExpired as error:
        return None, f"{error.cmd[0]} takes longer than {error.timeout} s"
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home
        return None, str(error)[:200]


def usable() -> bool:
    """Whether cpu.c's functions can be called, with as many threads as PyTorch has."""
    return library()[0] is not None and (torch.get_num_threads() == 1 or _openmp() != "")


def call(name: str, *arguments: Any) -> None:
    """Call a function with tensors and numbers, and the number of threads."""
    functions = library()[0]
    assert functions is not None
    getattr(functions, name)(*map(_passed, (*arguments, torch.get_num_threads())))


def _passed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_float(value)
