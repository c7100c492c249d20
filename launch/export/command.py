"""python -m launch export PATH... --to TRACKER: each seed of run directories as a run in a tracker, or in files."""

import re
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from launch.export.seeds import SeedRecord, read_seeds
from stn.config.registry import nearest
from stn.runs.directory import find_runs

PACKAGES = {"trackio": "trackio", "mlflow": "mlflow", "tensorboard": "tensorboard", "csv": "csv", "parquet": "pyarrow"}
"""Target -> the package that it needs."""
HAVE_DEFAULT = ("trackio", "mlflow")
"""Targets with a default place of their own for runs."""
Outcome = tuple[SeedRecord, str]
"""A seed, and what became of it in the target: new, unchanged, completed (got what it lacked) or replaced."""


def import_package(target: str) -> Any:
    """Return the package that a target needs; ValueError if it is not installed."""
    try:
        return import_module(PACKAGES[target])
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == PACKAGES[target]:
            raise ValueError(f"--to {target} needs a package: pip install {PACKAGES[target]}") from None
        raise ValueError(f"--to {target}: {PACKAGES[target]} cannot be imported: {error}") from None


def export(paths: list[str], to: str, out: str, project: str, say: Callable[[str], None]) -> int:
    """Export the seeds in these paths; return 1 if something was left out."""
    if to not in PACKAGES:
        wrong = f"no export to '{to}'; {nearest(to, PACKAGES)}"
        raise ValueError(wrong if to else f"say where to: --to {', '.join(PACKAGES)}")
    if not find_runs(paths):
        raise ValueError(f"no run directory in {', '.join(paths)}")
    if to not in HAVE_DEFAULT:
        out = out or str(Path(paths[0]) / "export")
    problems, outcomes = list[str](), Counter[str]()

    def leave_out(text: str) -> None:
        problems.append(text)
        say(text)

    module = import_module(f"launch.export.to_{'tables' if to in ('csv', 'parquet') else to}")
    for seed, outcome in getattr(module, f"write_{to}")(read_seeds(paths, leave_out), out, project):
        outcomes[outcome] += 1
        if outcome in ("completed", "replaced"):
            say(f"seed {seed.seed} of {seed.config.log.name} ({seed.sig}): {outcome}")
    counted = ", ".join(f"{outcomes[kind]:,} {kind}" for kind in ("new", "completed", "replaced", "unchanged"))
    place = re.sub(r"^(\w+://)[^/@]*@", r"\1", out)  # without the user and password of a tracking server
    say(f"{to}: {counted}" + (f"; in {place}" if place else ""))
    return 1 if problems else 0
