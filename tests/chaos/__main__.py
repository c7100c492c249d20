"""python -m tests.chaos: inject faults into short trainings and print what survived."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=_positive, default=20, help="trainings to kill at random moments (default: 20)")
    parser.add_argument(
        "--every", type=_positive, default=12, help="pause copies at every N-th of their writes (default: 12)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import stn.training.runtime  # noqa: F401  (imports torch once, for all that are forked)
    from tests.chaos.copies import paused_copies
    from tests.chaos.kills import random_kills

    folder = Path(tempfile.mkdtemp(prefix="stn-chaos-"))
    table = Table("fault", "injected", "runs", "faults", "seconds", title=f"seed {options.seed}, in {folder}")
    total: list[str] = []
    for name, inject in (
        ("kill at a random moment", lambda at: random_kills(at, options.kills, random.Random(options.seed))),
        ("copy paused at a write, deposed, woken", lambda at: paused_copies(at, range(1, 1000, options.every))),
    ):
        start, at = time.monotonic(), folder / name.split()[0]
        at.mkdir()
        injected, runs, faults = inject(at)
        table.add_row(name, str(injected), str(runs), str(len(faults)), f"{time.monotonic() - start:.0f}")
        total += faults
    Console().print(table)
    for fault in total:
        print(fault)
    if not total:
        shutil.rmtree(folder)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
