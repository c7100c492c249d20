"""The line under a table that says what it is of, so that another person's table can be compared with it."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence

from launch.report.analysis.cells import Cell
from launch.report.analysis.metrics import Metric
from launch.report.provenance.environments import Environment, joined

MOST_NAMES = 12
"""Networks by name; of more, their number."""


def digest(values: Iterable[tuple[str, str, int, float]]) -> str:
    """Return the hash of values: of the sorted lines [data set, sig, seed, value], as JSON."""
    lines = sorted(json.dumps(value) for value in values)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _plain(value: str) -> str:
    """Return a value on one line, without what would end a field or be markup in one of a report's formats."""
    return " ".join(re.sub(r"[|<>`]", "_", value).split())


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low}" if low == high else f"{low}-{high}"


def _unusual(cells: Sequence[Cell]) -> dict[str, str]:
    """Return settings of cells that are not the usual ones, which would be taken for granted."""
    of_cell: dict[str, list[object]] = {
        "limit-train": [cell.config.data.limit_train or "all" for cell in cells],
        "limit-test": [cell.config.data.limit_test or "all" for cell in cells],
        "validation": [cell.config.data.validation or "none" for cell in cells],
        "mirror": ["yes" if cell.config.eval.mirror else "no" for cell in cells],
        "tf32": ["yes" if cell.config.train.tf32 else "no" for cell in cells],
    }
    return {key: joined(values) for key, values in of_cell.items() if not {"all", "none", "no"} >= set(values)}


def signature(
    cells: Sequence[Cell],
    metric: Metric | Sequence[Metric],
    runs: Sequence[Environment],
    test: str,
    pairs: Sequence[int] | None = None,
) -> str:
    """Return key:value fields with | between.

    Each cell may have a metric of its own. ``runs`` are those of the cells; ``pairs`` are the seeds of each pair, of a
    table of pairs.
    """
    keys = [each.key for each in ([metric] * len(cells) if isinstance(metric, Metric) else metric)]
    values = [(cell, cell.values(key)) for cell, key in zip(cells, keys, strict=True)]
    labels = list(dict.fromkeys(cell.label for cell in cells))
    steps = [row.get("steps", cell.config.train.steps) for cell in cells for row in cell.rows.values()]
    fields = {
        "data": joined([cell.dataset for cell in cells]),
        "metric": joined(keys),
        "networks": ",".join(labels) if len(labels) <= MOST_NAMES else str(len(labels)),
        "n": _span([len(of_cell) for _, of_cell in values] if pairs is None else pairs),
        **({} if pairs is None else {"pairs": str(len(pairs))}),
        "steps": joined(steps),
        "precision": joined([cell.config.train.precision for cell in cells]),
        **_unusual(cells),
        "test": test,
        "stn-harness": joined([env.version("stn-harness") for env in runs]),
        "torch": joined([env.version("torch") for env in runs]),
        "commit": joined([env.commit + "+changes" * env.dirty for env in runs]),
        "rows": digest((c.dataset, c.sig, *item) for c, of_cell in values for item in of_cell.items()),
    }
    return "|".join(f"{key}:{_plain(value)}" for key, value in fields.items())
