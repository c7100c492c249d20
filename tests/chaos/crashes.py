"""The death of a process, or of its machine, at each operation by which a run changes its directory."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tests.chaos.operations import recorded, spread, watch
from tests.chaos.victim import Injected, Setting, end_of, judged, rerun, start

DEATHS = ("process", "machine")


def _die_at(number: int, of: str, runs: Path) -> Callable[[], None]:
    """Return what kills a process at its file operation of this number; a write is cut in half."""
    synced_sizes: dict[int, int] = {}
    """Size of each file, by inode, when it was last synced."""

    def act(name: str, path: Path, write_part: Callable[[float], None]) -> None:
        nonlocal number
        number -= 1
        if number == 0:
            write_part(0.5)
            if of == "machine":
                _lose_unsynced(runs, synced_sizes)
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "fsync" and path.is_file():
            synced_sizes[path.stat().st_ino] = path.stat().st_size

    return lambda: watch(runs, act)


def _lose_unsynced(runs: Path, synced_sizes: dict[int, int]) -> None:
    """Cut every file to what was synced of it, as a machine may that loses power."""
    for path in runs.rglob("*"):
        if path.is_file():
            os.truncate(path, min(path.stat().st_size, synced_sizes.get(path.stat().st_ino, 0)))


def _is_whole(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return path.read_bytes().endswith(b"\n")
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def torn(runs: Path) -> list[str]:
    """Return the files that have their name but are not whole. Metrics alone grow under theirs."""
    named = [path for path in runs.rglob("*") if path.is_file() and path.suffix != ".tmp"]
    return [f"torn: {path.name}" for path in named if path.name != "metrics.jsonl" and not _is_whole(path)]


def cases(setting: Setting, every: int) -> list[tuple[int, str]]:
    """Return deaths at every N-th operation, and at more of the writes: only these can leave a part of a file."""
    writes = [number for number, line in enumerate(recorded(setting), 1) if line.startswith("write ")]
    deaths = spread(setting, DEATHS, every)
    return sorted({*deaths, *((number, "process") for number in writes[:: max(1, every // 3)])})


def inject(setting: Setting, case: tuple[int, str]) -> Injected:
    """Let a process die at its operation of this number, and run the command again."""
    number, death = case
    runs = setting.folder / f"{death}-{number}"
    code = end_of(start(runs, before=_die_at(number, death, runs)))
    if code != -signal.SIGKILL:
        return judged(runs, [f"was not killed: exit code {code}"] * (code != 0), 0)
    return judged(runs, torn(runs) + rerun(runs, setting.expected))
