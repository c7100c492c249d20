"""Whether the runs of one signature were computed by the same code, by the fingerprints that they recorded."""

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from stn.runs.directory import Row, RunDir
from stn.runs.files import read_json

TOLERANCE = 1e-5
"""Largest difference that is rounding: images are made in float32, which kinds of CPU round differently."""


DECAY = "decay"
"""The one number that older fingerprints do not have; it comes from no image, and may be tiny."""


def difference(old: object, new: object) -> str | None:
    """Return what differs between two fingerprints; None if the computation is the same, or one is unknown."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None
    if old.get("shapes") != new.get("shapes"):
        return "the network's parameters or buffers have other names or shapes"
    older = {DECAY} & (new.keys() ^ old.keys())
    for key in sorted((new.keys() | old.keys()) - older - {"shapes"}):
        if not _close(old.get(key), new.get(key), 0 if key == DECAY else TOLERANCE):
            return f"{key} differs"
    return None


def _close(old: Any, new: Any, smallest: float) -> bool:
    try:
        return len(old) == len(new) and all(
            math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=smallest) for a, b in zip(old, new, strict=True)
        )
    except (TypeError, OverflowError):  # damaged
        return False


def refuse_mixture(rows: dict[int, Row], where: Path) -> None:
    """Raise ValueError if an experiment's rows, by seed, were not all computed by the same code."""
    counts = {seed: row.get("params") for seed, row in sorted(rows.items())}
    params = {seed: count for seed, count in counts.items() if type(count) is int and count < 10**12}  # else damaged
    known = {seed: row["fingerprint"] for seed, row in sorted(rows.items()) if isinstance(row.get("fingerprint"), dict)}
    for values, compare in ((params, _other_count), (known, difference)):
        for seed, value in values.items():
            first = next(iter(values))
            if why := compare(values[first], value):
                raise ValueError(
                    f"{where}: seeds {first} and {seed} were trained by different code ({why}) and cannot be averaged; "
                    "train them anew with --retrain"
                )


def _other_count(old: int, new: int) -> str | None:
    return None if old == new else f"{old:,} and {new:,} parameters"


def fingerprints(run: RunDir) -> list[dict[str, Any]]:
    """Return the fingerprints that an experiment's checkpoints and results have recorded."""
    records = [row for block in run.blocks() for row in block.rows().values()]
    # A start that saved nothing, such as one of code with a bug, is no reason to refuse.
    saved = [block for block in run.blocks() if any(block.checkpoints.glob("*/*.safetensors"))]
    records += [read_json(block.env) for block in saved]
    return [known for record in records if isinstance(known := record.get("fingerprint"), dict)]


def set_aside(run: RunDir) -> None:
    """Move all blocks of an experiment to .replaced; ValueError while one of them is being trained."""
    experiment = run.path.parent
    for block in run.blocks():
        if block.lease.is_live():
            raise ValueError(f"{block.path} is being trained; stop it before --retrain")
    replaced = experiment.parent / ".replaced"
    replaced.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):  # another process has moved it
        experiment.rename(replaced / f"{experiment.name}-{time.strftime('%Y%m%dT%H%M%S')}")
