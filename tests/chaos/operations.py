"""The operations by which a process changes files below a folder, one by one, and what may happen at each of them."""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.victim import Setting, clear, end_of, start

NAMES = ("write", "fsync", "replace", "rename", "link", "unlink", "mkdir")
Act = Callable[[str, Path, Callable[[float], None]], None]
"""Called before each operation with its name, its path, and a function that performs a part of a write."""


def _path(file: Any) -> Path:
    """Return the path of a path or of an open file's number."""
    return Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else Path(os.fspath(file))


def watch(folder: Path, act: Act) -> None:
    """Call ``act`` before each operation of this process below a folder; an exception takes the operation's place."""
    folder = folder.resolve()

    def below(file: object) -> bool:
        return not isinstance(file, bytes) and _path(file).absolute().is_relative_to(folder)

    def guard(name: str) -> None:
        call = getattr(os, name)

        def guarded(file: Any, *arguments: Any, **options: Any) -> Any:
            if below(file):
                act(name, _path(file), lambda part: None)
            return call(file, *arguments, **options)

        setattr(os, name, guarded)

    for name in NAMES[1:]:
        guard(name)
    original = io.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        handle = original(file, mode, *arguments, **options)
        return _Written(handle, _path(file), act) if set(mode) & set("wax+") and below(file) else handle

    io.open = builtins.open = opened


class _Written:
    """A file that asks before each write."""

    def __init__(self, handle: Any, path: Path, act: Act) -> None:
        self.handle, self.path, self.act = handle, path, act

    def write(self, content: Any) -> int:
        def perform(part: float) -> None:
            self.handle.write(content[: int(part * len(content))])
            self.handle.flush()

        self.act("write", self.path, perform)
        return self.handle.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    def __enter__(self) -> "_Written":
        self.handle.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self.handle.__exit__(*error)


def recorded(setting: Setting) -> list[str]:
    """Return the operations of an undisturbed run, each as its name and the file's."""
    runs, record = setting.folder / "recorded", setting.folder / "operations"
    with record.open("ab", buffering=0) as file:

        def note(name: str, path: Path, _: object) -> None:
            file.write(f"{name} {path.name}\n".encode())

        assert end_of(start(runs, before=lambda: watch(runs, note))) == 0
    clear(runs)
    lines = record.read_text().splitlines()
    record.unlink()
    return lines


def count_of(setting: Setting, name: str) -> int:
    """Return how many operations of a name an undisturbed run has."""
    return sum(line.startswith(f"{name} ") for line in recorded(setting))


def spread(setting: Setting, kinds: tuple[str, ...], every: int) -> list[tuple[int, str]]:
    """Return every N-th operation of an undisturbed run with each kind of fault, at different operations."""
    numbers = range(1, len(recorded(setting)) + 1)
    starts = {kind: i * every // len(kinds) for i, kind in enumerate(kinds)}
    return [(number, kind) for kind, start in starts.items() for number in numbers[start::every]]
