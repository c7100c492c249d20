"""Kills at random moments of training, evaluation, saving and result writing."""

import os
import random
import signal
import time
from pathlib import Path

from tests.chaos.victim import Outcome, clear, end_of, start, undisturbed


def random_kills(folder: Path, kills: int, rng: random.Random) -> tuple[int, int, list[str]]:
    """Kill trainings until so many have died; return the numbers of kills and of runs, and faults."""
    expected = undisturbed(folder)
    begin = time.monotonic()
    assert end_of(start(folder / "timed")) == 0
    whole_s = time.monotonic() - begin
    clear(folder / "timed")
    killed, finished, faults = 0, 0, []
    while killed < kills:
        runs = folder / f"run-{finished}"
        while True:
            pid = start(runs)
            time.sleep(rng.uniform(0.3, 1.1) * whole_s)
            os.kill(pid, signal.SIGKILL)
            code = end_of(pid)
            killed += code == -signal.SIGKILL
            if code != -signal.SIGKILL:
                break
        finished += 1
        log = (folder / f"{runs.name}.log").read_text()
        found = Outcome.read(runs).faults(expected) + [f"exit code {code}"] * (code != 0)
        if "Traceback" in log:
            found.append("a traceback")
        faults += [f"{runs.name}: {fault}" for fault in found]
        if not found:
            clear(runs)
    return killed, finished, faults
