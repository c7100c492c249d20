"""Two ranks that share each batch, one of which is killed at a random moment."""

import random

from tests.chaos.launched import kill_one, undisturbed
from tests.chaos.victim import Injected, Setting

__all__ = ["cases", "inject", "undisturbed"]


def cases(setting: Setting, size: int) -> list[int]:
    return list(range(size))


def inject(setting: Setting, case: int) -> Injected:
    runs = setting.folder / f"rank-{case}"
    return kill_one(setting, runs, "rank", random.Random(f"{setting.seed} rank {case}"))
