"""Who may write a directory: a numbered lease that its holder renews.

    <run>/.claim/7      the highest number holds; a holder that sees a higher one stops writing and exits

Assumed of the file system, and true of NFS, Lustre, GPFS and local disks: ``link`` creates a name or
refuses, atomically; ``rename`` replaces atomically; a file that was closed is seen by whoever opens it
afterwards; a listing is never older than a quarter of the lease. Not assumed: working locks, or
synchronised clocks (except in ``is_live``, which judges another machine by the age of a file).
"""

import atexit
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from stn.config.command_line import fail
from stn.runs.files import publish, read_json, write_atomic
from stn.runs.records import Holder, valid


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < 10**6:
            return seconds
    fail(f"STN_LEASE_S is {text!r:.80}, not a number of seconds above 0")


LEASE_S = _seconds(os.environ.get("STN_LEASE_S", "120"))
"""Seconds without an observed heartbeat after which a waiter may take over."""
UNKNOWN: dict[str, Any] = {"place": ["unknown"], "pid": 0, "since": 0.0, "job": None, "restart": 0, "released": False}


def _this_process() -> dict[str, Any]:
    """Return where this process runs, and as which start of which Slurm job."""
    place = [socket.gethostname()]
    with suppress(OSError):
        place.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        place.append(str(Path("/proc/self/ns/pid").readlink()))
    return {
        "place": place,
        "pid": os.getpid(),
        "since": psutil.Process().create_time(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    }


def _lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder is alive, if it runs on this machine; None for another machine or container."""
    if holder["place"] != _this_process()["place"]:
        return None
    try:
        process = psutil.Process(holder["pid"])
        # Not exactly: it is counted from the boot time, which moves with the clock.
        return abs(process.create_time() - holder["since"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None if psutil.pid_exists(holder["pid"]) else False  # another user's process may be hidden


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether the holder is known to be gone, or we are a later start of its own Slurm job.

    Slurm restarts a job after ending its earlier start, or after losing its node, where that start may still run. This
    is safe: like every deposed holder, it checks the lease before each write.
    """
    this = _this_process()
    replaced = this["job"] is not None and holder["job"] == this["job"] and holder["restart"] < this["restart"]
    return holder["released"] or replaced or _lives_here(holder) is False


class Lease:
    """A lease on one directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, 0
        self.lost: str | None = None
        """Why this process no longer holds the lease, if it knows."""
        self._beat, self._renewed, self._released = 0, 0.0, threading.Event()
        self._writing = threading.Lock()
        """Keeps a heartbeat from overwriting the release."""

    def _file(self, token: int) -> Path:
        return self.folder / str(token)

    def _tokens(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdecimal())

    def newest(self) -> tuple[int, dict[str, Any]]:
        """Return the highest number and what its holder wrote last; 0 if there never was one."""
        token = max(self._tokens(), default=0)
        if not token:
            return token, UNKNOWN | {"released": True}
        # UNKNOWN if the file is damaged, or if the number was superseded while we read.
        return token, next(iter(valid([read_json(self._file(token))], Holder)), UNKNOWN)

    def is_live(self) -> bool:
        """Whether the holder seems alive: by its process on this machine, else by the age of its last heartbeat."""
        token, holder = self.newest()
        if holder["released"]:
            return False
        here = _lives_here(holder)
        with suppress(FileNotFoundError):
            return time.time() - self._file(token).stat().st_mtime < 2 * LEASE_S if here is None else here
        return True

    def take(self, tell: Callable[[str], None], patience_s: float = 30.0) -> None:
        """Take the lease; wait for a holder that exits or is dead, OSError if it is alive after ``patience_s``."""
        start = changed = time.monotonic()
        before: dict[str, Any] | None = None
        alive = told = False
        while True:
            token, holder = self.newest()
            now = time.monotonic()
            if holder != before:
                alive = None not in (before, holder.get("beat"))  # an unreadable lease is no heartbeat
                before, changed = holder, now
            if _is_over(holder) or now - changed > LEASE_S:
                if self._enter(token + 1):
                    return
                continue
            busy = f"another process ({holder['place'][0]}:{holder['pid']}) is training {self.folder.parent}"
            if (alive or _lives_here(holder)) and now - start > patience_s:
                raise OSError(busy)
            if not told:
                tell(f"{busy}; waiting for it to exit")
            told = True
            time.sleep(0.2)

    def _text(self, released: bool = False) -> str:
        return json.dumps(_this_process() | {"beat": self._beat, "released": released}) + "\n"

    def _enter(self, token: int) -> bool:
        if not publish(self._file(token), self._text()):
            return False
        *older, newest = self._tokens() or [0]
        if newest != token:  # it was taken, released and taken again while we slept
            self._file(token).unlink(missing_ok=True)
            return False
        self.token, self._renewed = token, time.monotonic()
        for number in older:
            self._file(number).unlink(missing_ok=True)
        threading.Thread(target=self._renew_until_released, name=f"lease {self.folder}", daemon=True).start()
        atexit.register(self.release)
        return True

    def held(self) -> bool:
        """Whether we still hold the lease; re-reads the directory."""
        if not self.lost and self.newest()[0] != self.token:
            self.lost = "another process has taken over"
        return not self.lost

    def _renew_until_released(self) -> None:
        while not self._released.wait(LEASE_S / 6) and not self.lost:
            self._renew()

    def _renew(self) -> None:
        try:
            with self._writing:
                if not self._released.is_set() and self.held():
                    self._beat += 1
                    write_atomic(self._file(self.token), self._text())
                    self._renewed = time.monotonic()
        except OSError:
            if time.monotonic() - self._renewed > LEASE_S:
                self.lost = "its lease could not be renewed"  # others may take over

    def release(self) -> None:
        """Release the lease, so that the next process need not wait."""
        self._released.set()
        atexit.unregister(self.release)
        with suppress(OSError), self._writing:
            if self.token and self.held():
                write_atomic(self._file(self.token), self._text(released=True))
        self.token = 0
