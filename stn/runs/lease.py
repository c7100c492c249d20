"""Who trains a run directory: a numbered claim that its holder keeps alive. Must not know what is in the directory.

    <run>/.claim/7      the newest number holds; a holder that sees a higher one leaves without a word

Assumed of the file system, and true of NFS, Lustre, GPFS and local disks: ``link`` makes a name
or refuses it as one act, ``rename`` replaces as one act, a file that was closed is seen by who
opens it afterwards, and a listing is never older than a quarter of the lease. Not assumed: locks
that work; clocks that agree, but where ``is_live`` judges another machine at a glance.
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

from stn.runs.files import publish, read_json, write_atomic

LEASE_S = float(os.environ.get("STN_LEASE_S", "120"))
"""A claim that nobody has renewed for so long, as who wants it has watched, is free."""


UNKNOWN: dict[str, Any] = {"place": ["unknown"], "pid": 0, "since": 0.0, "job": None, "restart": 0, "released": False}
NOBODY = UNKNOWN | {"released": True}


def _myself() -> dict[str, Any]:
    """Where this process runs, and as which start of which Slurm job."""
    place = [socket.gethostname()]
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            place.append(str(Path(file).readlink()) if file.endswith("pid") else Path(file).read_text().strip())
    return {
        "place": place,
        "pid": os.getpid(),
        "since": psutil.Process().create_time(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    }


def _lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether a process of this machine lives; None: of another machine, or of another container."""
    if holder["place"] != _myself()["place"]:
        return None
    try:
        process = psutil.Process(holder["pid"])
        # Not to the tick: the time of boot, from which it is counted, moves with the clock.
        return abs(process.create_time() - holder["since"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None if psutil.pid_exists(holder["pid"]) else False  # somebody else's may be hidden


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether a holder is known to be gone, or has been replaced by us in its own job's place."""
    if holder["released"]:
        return True
    me = _myself()
    replaced = me["job"] is not None and holder["job"] == me["job"] and holder["restart"] < me["restart"]
    return replaced or _lives_here(holder) is False


class Lease:
    """One claim on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, 0
        self.lost: str | None = None
        """Why this holder is none any more, as far as it knows."""
        self._beat, self._beaten, self._done = 0, 0.0, threading.Event()
        self._writing = threading.Lock()
        """So that no beat is written over what was said on leaving."""

    def newest(self) -> tuple[int, dict[str, Any]]:
        """The number that holds and what its holder said last; 0 where nobody ever held."""
        tokens = [int(p.name) for p in self.folder.glob("*") if p.name.isdigit()]
        if not tokens:
            return 0, NOBODY
        # Nothing: damaged, or a higher one has come in the meantime.
        return max(tokens), UNKNOWN | read_json(self.folder / str(max(tokens)))

    def is_live(self) -> bool:
        """Whether somebody seems to be at it, at a glance: by the age of the last beat where it is not our machine."""
        token, holder = self.newest()
        if holder["released"]:
            return False
        here = _lives_here(holder)
        with suppress(FileNotFoundError):
            return time.time() - (self.folder / str(token)).stat().st_mtime < 2 * LEASE_S if here is None else here
        return True

    def take(self, tell: Callable[[str], None], patience_s: float) -> None:
        """Hold the folder; wait for a holder that leaves or is dead, give up on one that lives on."""
        start = changed = time.monotonic()
        before: dict[str, Any] | None = None
        alive = told = False
        while True:
            token, holder = self.newest()
            now = time.monotonic()
            if holder != before:
                alive = None not in (before, holder.get("beat"))  # nothing to be read is no sign of life
                before, changed = holder, now
            if _is_over(holder) or now - changed > LEASE_S:
                if self._enter(token + 1):
                    return
                continue
            busy = f"another process ({holder['place'][0]}:{holder['pid']}) is training {self.folder.parent}"
            if (alive or _lives_here(holder)) and now - start > patience_s:
                raise OSError(busy)
            if not told:
                tell(f"{busy}; waiting for it to leave")
            told = True
            time.sleep(0.2)

    def _text(self, **more: Any) -> str:
        return json.dumps(_myself() | {"beat": self._beat, "released": False} | more) + "\n"

    def _enter(self, token: int) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not publish(self.folder / str(token), self._text(), self.folder):
            return False
        if self.newest()[0] != token:  # while we slept it was taken, left and taken again
            (self.folder / str(token)).unlink(missing_ok=True)
            return False
        self.token, self._beaten = token, time.monotonic()
        for older in self.folder.glob("*"):
            if older.name.isdigit() and int(older.name) < token:
                older.unlink(missing_ok=True)
        threading.Thread(target=self._keep, name=f"claim {self.folder}", daemon=True).start()
        atexit.register(self.release)
        return True

    def held(self) -> bool:
        """Whether nobody has taken over, as the folder says now."""
        if not self.lost and self.newest()[0] != self.token:
            self.lost = "another process has taken over"
        return not self.lost

    def _keep(self) -> None:
        while not self._done.wait(LEASE_S / 6):
            try:
                with self._writing:
                    if self._done.is_set() or not self.held():
                        return
                    self._beat += 1
                    write_atomic(self.folder / str(self.token), self._text())
                    self._beaten = time.monotonic()
            except OSError:
                if time.monotonic() - self._beaten > LEASE_S:
                    self.lost = "its claim could not be renewed"  # others may think us dead
                    return

    def release(self) -> None:
        """Leave, so that the next one need not wait."""
        self._done.set()
        atexit.unregister(self.release)
        with suppress(OSError), self._writing:
            if self.token and self.held():
                write_atomic(self.folder / str(self.token), self._text(released=True))
        self.token = 0
