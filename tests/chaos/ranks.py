"""Two ranks that share each batch, one of which is killed at a random moment, or told to stop: both must stop."""

import random
import signal

from tests.chaos.launched import signal_one, undisturbed
from tests.chaos.victim import Injected, Setting

__all__ = ["cases", "inject", "undisturbed"]


def cases(setting: Setting, size: int) -> list[int]:
    return list(range(size))


def inject(setting: Setting, case: int) -> Injected:
    """Kill a rank, or in every second case ask it to stop: both then save the same step."""
    runs, rng = setting.folder / f"rank-{case}", random.Random(f"{setting.seed} rank {case}")
    return signal_one(setting, runs, "rank", signal.SIGTERM if case % 2 else signal.SIGKILL, rng)
