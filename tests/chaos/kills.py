"""Kills at random moments of training, evaluation, saving and result writing."""

import os
import random
import signal
import time

from tests.chaos.victim import Injected, Setting, end_of, faults_after, judged, start

PER_CASE = 10


def cases(setting: Setting, kills: int) -> list[tuple[int, int]]:
    """Return numbered portions of the kills."""
    return [(i, min(PER_CASE, kills - i)) for i in range(0, kills, PER_CASE)]


def inject(setting: Setting, case: tuple[int, int]) -> Injected:
    """Kill trainings until so many have died."""
    (number, wanted), killed, runs_done = case, 0, 0
    rng, faults = random.Random(f"{setting.seed} {number}"), []
    while killed < wanted:
        runs = setting.folder / f"run-{number}-{runs_done}"
        while True:
            pid = start(runs)
            if killed < wanted:
                time.sleep(rng.uniform(0.1, 1.1) * setting.whole_s)
                os.kill(pid, signal.SIGKILL)
            code = end_of(pid)
            if code != -signal.SIGKILL:
                break
            killed += 1
        runs_done += 1
        faults += judged(runs, faults_after(runs, setting.expected, code, pid)).faults
    return Injected(killed, faults)
