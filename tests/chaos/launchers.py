"""A launcher that is killed at a random moment while its ranks train: nobody may train on."""

import random
import signal

from tests.chaos.launched import signal_one, undisturbed
from tests.chaos.victim import Injected, Setting

__all__ = ["cases", "inject", "undisturbed"]


def cases(setting: Setting, size: int) -> list[int]:
    return list(range(size))


def inject(setting: Setting, case: int) -> Injected:
    runs = setting.folder / f"launcher-{case}"
    return signal_one(setting, runs, "launcher", signal.SIGKILL, random.Random(f"{setting.seed} launcher {case}"))
