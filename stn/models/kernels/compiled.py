"""The functions in the folder c, built by this machine's compiler when they are first needed, and kept.

They share PyTorch's pool of threads: those of a second OpenMP would wait for the same cores. Linux only.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

VECTOR = 8
"""Channels that cpu.c takes at once."""
_C = Path(__file__).with_name("c")
_SOURCES = {
    _C / "cpu.c": "-ffp-contract=off",
    _C / "conv.c": "-ffp-contract=fast",
    _C / "thin.c": "-ffp-contract=fast",
    _C / "pooled.c": "-ffp-contract=fast",
}
"""With the flag that says whether a product and a sum are rounded one by one or as one."""
FUNCTIONS = (
    *("max_pool", "max_pool_gradient", "sample", "sample_gradient", "resample", "add_columns"),
    *("vector_lanes", "convolve", "convolve_to_image", "convolve_to_filters", "thin_to_image"),
    *("pooled_to_filters", "pooled_to_image"),
)
_FLAGS = ("-O3", "-march=native", "-fno-fast-math", "-fno-trapping-math", "-fPIC")
_SECONDS = 60
"""For a compiler that hangs; all files take 1.5."""


class Library(NamedTuple):
    functions: ctypes.CDLL | None
    reason: str = ""
    """Why there are none; empty where none are expected."""
    shares: bool = False
    """Whether threads can share the work."""


class _CannotBuild(Exception):
    pass


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _openmp() -> str:
    """Return the path of PyTorch's OpenMP library; an empty text if it has none, or another may be its own."""
    mapped = {line.split(maxsplit=5)[5] for line in _lines("/proc/self/maps") if line.count("/")}
    paths = sorted(path for path in mapped if Path(path).name.startswith(("libgomp", "libiomp5", "libomp.")))
    home = Path(torch.__file__).parent
    its = [
        path for path in paths if Path(path).is_relative_to(home) or home.with_name("torch.libs") in Path(path).parents
    ]
    return (its or paths)[0] if its or len(paths) == 1 else ""


def _instruction_set() -> str:
    """Return what code for this CPU depends on: a home directory is shared by machines."""
    return next((line for line in _lines("/proc/cpuinfo") if line.startswith(("flags", "Features"))), "")


def _build(path: Path, compiler: list[str], flags: list[str]) -> None:
    """Compile, then link without any library: what is missing, Python and PyTorch have loaded."""
    steps, objects = [], []
    for source, contract in _SOURCES.items():
        objects.append(str(path.with_suffix(f".{source.stem}.o")))
        steps.append((source.name, [*flags, contract, "-c", str(source), "-o", objects[-1]]))
    for name, words in [*steps, ("a library", ["-shared", "-nostdlib", *objects, "-o", str(path)])]:
        try:
            done = subprocess.run(
                [*compiler, *words], capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise _CannotBuild(f"{compiler[0]} takes longer than {_SECONDS} s") from None
        except OSError as error:
            raise _CannotBuild(f"there is no C compiler ({compiler[0]}: {error.strerror})") from None
        if done.returncode:
            lines = done.stderr.splitlines()
            said = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
            raise _CannotBuild(f"{compiler[0]} cannot build {name}: {said or f'exit status {done.returncode}'}")


def _open(path: Path) -> ctypes.CDLL:
    functions = ctypes.CDLL(str(path))
    for name in FUNCTIONS:
        getattr(functions, name)
    return functions


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the hash of what is before: loading half a library kills the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return len(content) > 32 and hashlib.sha256(content[:-32]).digest() == content[-32:]


def _load(compiler: list[str], flags: list[str]) -> ctypes.CDLL:
    """Load the library that an earlier process has built; or build it, where it is kept or for this process alone."""
    built_from = "\n".join(
        [
            *(f"{flag}\n{source.read_text()}" for source, flag in _SOURCES.items()),
            (_C / "vectors.h").read_text(),
            *compiler,
            *flags,
            platform.machine(),
            _instruction_set(),
        ]
    )
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (never fails)
    kept = Path(home, "stn-harness", f"cpu-{hashlib.sha256(built_from.encode()).hexdigest()[:16]}.so")
    if _is_whole(kept):
        return _open(kept)
    problem: Exception | None = None
    for place in (kept.parent, None):
        try:
            if place:
                place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as folder:
                built = Path(folder, kept.name)
                _build(built, compiler, flags)
                content = built.read_bytes()
                built.write_bytes(content + hashlib.sha256(content).digest())
                functions = _open(built)
                if place:
                    built.replace(kept)
                return functions
        except (OSError, AttributeError) as error:  # a place without rights, room or leave to run programs
            problem = error
    raise _CannotBuild(f"a library cannot be built or loaded: {problem}")


@cache
def library() -> Library:
    """Return the functions, or why there are none."""
    if sys.platform != "linux":
        return Library(None)
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        if openmp := _openmp():
            try:
                ctypes.CDLL(openmp, mode=ctypes.RTLD_GLOBAL)  # its names are looked up when the functions are loaded
                return Library(_load(compiler, [*_FLAGS, "-fopenmp"]), shares=True)
            except (OSError, _CannotBuild):  # a compiler without OpenMP, or with another one than PyTorch's
                pass
        return Library(_load(compiler, [*_FLAGS]))
    except (OSError, ValueError, _CannotBuild) as error:
        return Library(None, str(error).splitlines()[0][:200])


def missing() -> str | None:
    """Return why the functions cannot be called with PyTorch's number of threads; None if they can."""
    functions, reason, shares = library()
    if functions is not None and not shares and torch.get_num_threads() > 1:
        return "threads cannot share PyTorch's OpenMP"
    return reason if functions is None else None


def fits(*tensors: Tensor) -> bool:
    """Whether these are tensors that the functions take, and the functions are there."""
    plain = all(x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() for x in tensors)
    return plain and missing() is None


def call(name: str, *arguments: Any) -> None:
    """Call a function with tensors and numbers, and the number of threads."""
    getattr(library().functions, name)(*map(_passed, (*arguments, torch.get_num_threads())))


def _passed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_float(value)
