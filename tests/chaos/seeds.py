"""One of two seeds diverges at a random step: the rows, metrics and weights of the other stay as they are."""

import math
import random
from collections.abc import Callable
from pathlib import Path

from tests.chaos import victim
from tests.chaos.outcome import Outcome
from tests.chaos.victim import Injected, Setting, end_of, judged, left_of, start

WORDS = ("--net", "tutorial_norm", "--optim.clip", "1")
"""Batch norm and clipping: either would carry a seed's numbers to another one if it were done over all seeds."""
UPDATES = range(2, 11)
"""The first two are also those of a fingerprint; after the last one there is no loss."""


def _diverge(seed: int, update: int) -> Callable[[], None]:
    """Return what makes a seed's weights infinite in one of its updates."""

    def prepare() -> None:
        from stn.training.optimizer import SeedOptimiser

        step = SeedOptimiser.step

        def diverging(self: SeedOptimiser) -> None:
            step(self)
            if int(self.clock) == update:
                for stacked in self.model.stacked.values():
                    stacked.data[self.model.seeds.index(seed)] = math.inf

        SeedOptimiser.step = diverging  # type: ignore[method-assign, assignment]

    return prepare


def undisturbed(folder: Path, seed: int) -> Setting:
    return victim.undisturbed(folder, seed, *WORDS)


def cases(setting: Setting, size: int) -> list[int]:
    return list(range(size))


def inject(setting: Setting, case: int) -> Injected:
    """Let one seed diverge: its row says so, and the other seed is the one of the undisturbed run."""
    rng, runs = random.Random(f"{setting.seed} seed {case}"), setting.folder / f"seed-{case}"
    seed, update = rng.randrange(2), rng.choice(UPDATES)
    pid = start(runs, *WORDS, before=_diverge(seed, update))
    code = end_of(pid)
    after, expected = Outcome.read(runs), setting.expected
    other = expected.of(1 - seed)
    other.files = [
        name for name in other.files if name != f"predictions/seed-{seed}.safetensors"
    ]  # a failed seed has none
    found = after.of(1 - seed).faults(other) + [f"exit code {code}"] * (code != 1)
    found += [f"processes left: {left}" for left in [left_of(pid)] if left]
    reasons = [row.get("reason") for row in after.of(seed).results]
    if reasons != [f"non-finite loss at step {update + 1}"]:
        found.append(f"the reasons in the rows of seed {seed}, which diverged at step {update + 1}, are {reasons}")
    before = [row for row in expected.of(seed).metrics if row["step"] <= update]
    if before != [row for row in after.of(seed).metrics if row["step"] <= update]:
        found.append(f"metrics of seed {seed} from before it diverged differ")
    return judged(runs, found)
