"""Trainings under accelerate launch, of which one process gets a signal: a rank, or the launcher."""

import os
import random
import signal
import subprocess
import time
from functools import cache
from pathlib import Path

from stn.runs.files import read_rows
from tests.chaos.outcome import SECRETS, Outcome
from tests.chaos.victim import WORDS, Injected, Setting, die_with_parent, judged
from tests.support.machine import processes_with, wait_until
from tests.support.trainer import command, environment

CASE = "STN_CHAOS_CASE"
"""Variable by which all processes of one case are found."""
RANKS = 2
STEPS = 60
MANY = ("--steps", str(STEPS), "--checkpoint.every", "10 steps", "--eval.every", "20 steps")
SLOW_TO_STOP = 20
"""Steps within which ranks agree to stop: they ask each other every ten."""
GONE_S = 30.0
"""Seconds within which all processes of a killed launcher must be gone."""


def launch(runs: Path, *more: str) -> subprocess.Popen:
    """Start a training on two ranks that share each batch."""
    words = command(*WORDS, "--parallel", "data", *more, launcher="cpu2", runs=runs)
    with runs.with_name(f"{runs.name}.log").open("ab") as log:
        return subprocess.Popen(
            words, stdout=log, stderr=log, env=environment(**SECRETS, **{CASE: str(runs)}),
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip


def ranks_of(runs: Path) -> dict[str, int]:
    """Return the processes that train, by rank."""
    ranks = {}
    for pid in processes_with(CASE, str(runs)):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks |= {v.decode(): pid for v in variables if v.startswith(b"RANK=")}
    return ranks


@cache
def _undisturbed(folder: Path) -> tuple[Outcome, float]:
    runs = folder / "undisturbed-ranks"
    process = launch(runs, *MANY)
    wait_until("two ranks", lambda: len(ranks_of(runs)) == RANKS, 60)
    begin = time.monotonic()
    assert process.wait(120) == 0, runs.with_name(f"{runs.name}.log").read_text()
    return Outcome.read(runs), time.monotonic() - begin


def undisturbed(folder: Path, seed: int) -> Setting:
    """Run a training on two ranks that nothing happens to, once for all kinds of fault."""
    return Setting(folder, *_undisturbed(folder.parent), seed)


def last_step(runs: Path) -> int:
    """Return the last step that was logged."""
    rows = [row for path in runs.glob("*/*/*/metrics.jsonl") for row in read_rows(path)]
    return max((row["step"] for row in rows if row["kind"] == "train"), default=0)


def signal_one(setting: Setting, runs: Path, of: str, number: signal.Signals, rng: random.Random) -> Injected:
    """Signal a rank or the launcher at a random moment of its ranks' life, and run the command again."""
    process, found, count = launch(runs, *MANY), [], 1
    wait_until("two ranks", lambda: len(ranks_of(runs)) == RANKS or process.poll() is not None, 60)
    if number == signal.SIGTERM:  # before training begins it kills
        first = rng.randrange(1, STEPS - SLOW_TO_STOP)
        wait_until(f"step {first}", lambda: last_step(runs) >= first or process.poll() is not None, 60)
    else:
        time.sleep(rng.uniform(0.0, 1.0) * setting.whole_s)
    victim = process.pid if of == "launcher" else ranks_of(runs).get(f"RANK={rng.randrange(RANKS)}")
    if victim is None or process.poll() is not None:
        count = 0
    else:
        os.kill(victim, number)
    step = last_step(runs)
    try:
        process.wait(120)
        wait_until("the end of all processes", lambda: not processes_with(CASE, str(runs)), GONE_S)
    except (AssertionError, subprocess.TimeoutExpired):
        left = processes_with(CASE, str(runs))
        found.append(f"after {GONE_S:.0f} s still there: {sorted(left.values())}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.wait(10)
    if count and last_step(runs) > step + SLOW_TO_STOP:
        found.append(f"trained on from step {step} to {last_step(runs)}")
    if number == signal.SIGTERM and process.returncode:
        found.append(f"exit code {process.returncode} of ranks that were told to stop")
    runs.with_name(f"{runs.name}.log").unlink()  # a launcher whose rank was killed adds a traceback of its own
    code = launch(runs, *MANY).wait(120)
    found += Outcome.read(runs).faults(setting.expected) + [f"exit code {code}"] * (code != 0)
    return judged(runs, found, count)
