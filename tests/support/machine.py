"""The machine that the tests run on: cores, loopback interface, processes."""

import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

EVERY_CORE = os.sched_getaffinity(0) if sys.platform == "linux" else set()


def bring_loopback_up() -> None:
    """Enable the loopback interface, which is down under ``unshare -n``; two ranks could not meet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(s, 0x8913, request))[1]
        if not flags & 1:
            fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))


def wait_until(event: str, happened: Callable[[], object], seconds: float, explain: Callable[[], str] = str) -> None:
    """Poll until ``happened()`` is true; fail after ``seconds`` with the event's name and ``explain()``."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {event}\n{explain()}"
        time.sleep(0.05)


def processes_with(variable: str, value: str) -> dict[int, str]:
    """Return the command lines, by process id, of processes whose environment has ``variable=value``."""
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            marked = f"{variable}={value}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marked and words and "resource_tracker" not in words:  # Python's own; it ends with the tests
            commands[int(folder.name)] = words
    return commands
