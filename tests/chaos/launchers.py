"""A launcher that is killed at a random moment while its ranks train: nobody may train on."""

import random

from tests.chaos.launched import kill_one, undisturbed
from tests.chaos.victim import Injected, Setting

__all__ = ["cases", "inject", "undisturbed"]


def cases(setting: Setting, size: int) -> list[int]:
    return list(range(size))


def inject(setting: Setting, case: int) -> Injected:
    runs = setting.folder / f"launcher-{case}"
    return kill_one(setting, runs, "launcher", random.Random(f"{setting.seed} launcher {case}"))
