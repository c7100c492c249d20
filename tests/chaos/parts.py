"""Batches that are divided, over two ranks or into parts: the numbers of training are those of one process."""

import math
from pathlib import Path

from tests.chaos.launched import launch
from tests.chaos.outcome import Outcome, read_log
from tests.chaos.victim import Injected, Setting, end_of, judged, start, undisturbed

__all__ = ["cases", "inject", "undisturbed"]
TOLERANCE = 1e-12
NORM = ("--net", "tutorial_norm")
CASES = {"ranks": NORM, "parts": (), "parts-norm": NORM}
"""What shares a batch, and with which network."""
REFUSED = "error: batch norm needs the whole batch"


def cases(setting: Setting, size: int) -> list[str]:
    return list(CASES)[:size]


def _numbers(outcome: Outcome) -> list[tuple]:
    """Return the losses and accuracies of every row of metrics."""
    return [
        tuple(row.get(key) for key in ("kind", "seed", "step", "loss", "acc", "test_loss", "test_acc"))
        for row in outcome.metrics
        if row.get("kind") in ("train", "eval")
    ]


def _close(one: object, other: object) -> bool:
    numbers = isinstance(one, float) and isinstance(other, float)
    return math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE) if numbers else one == other  # type: ignore[arg-type]


def _of_one_process(runs: Path, words: tuple[str, ...]) -> Outcome:
    assert end_of(start(runs, *words)) == 0, read_log(runs)
    return Outcome.read(runs)


def inject(setting: Setting, case: str) -> Injected:
    """Train with divided batches and compare with one process; a refusal in one line is as good."""
    runs, words = setting.folder / case, CASES[case]
    expected = _of_one_process(setting.folder / f"{case}-whole", words) if words else setting.expected
    accumulated = [*words, "--optim.accumulate", "2"]
    code = launch(runs, *words).wait(120) if case == "ranks" else end_of(start(runs, *accumulated))
    log = read_log(runs)
    if code == 2 and log.startswith(REFUSED) and log.count("\n") == 1:
        return judged(runs, ["refused, but wrote files"] * runs.exists())
    ours, whole, found = _numbers(Outcome.read(runs)), _numbers(expected), [f"exit code {code}"] * (code != 0)
    if len(ours) != len(whole):
        found.append(f"{len(ours)} rows of metrics instead of {len(whole)}")
    elif different := [row for row, other in zip(ours, whole, strict=True) if not all(map(_close, row, other))]:
        found.append(f"{len(different)} rows of metrics differ from those of one process")
    return judged(runs, found)
