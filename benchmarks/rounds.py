"""Rounds of measurements: every form of a network once, in turns."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import psutil
from measure import CORES, console
from measured import Form, Row, best
from running import Running

PROCESS_BYTES = 700e6
"""Memory of a process that waits for its turn; no more are started at once than fit."""


def _groups(rows: list[Row], job: dict[str, Any]) -> Iterator[list[Row]]:
    """Divide rows into those whose processes fit into memory side by side; on a GPU each is alone."""
    group: list[Row] = []
    room = psutil.virtual_memory().available / PROCESS_BYTES
    for row in rows:
        if group and (job["cuda"] or sum(r.form.processes for r in (*group, row)) > room):
            yield group
            group = []
        group.append(row)
    yield group


def measure_round(
    name: str,
    rows: list[Row],
    job: dict[str, Any],
    start: Callable[[Form, dict[str, Any]], Running] = Running,
    end: Callable[[Running], dict[str, Any]] = Running.end,
    alone: Callable[[Form], bool] = lambda form: False,
) -> None:
    """Measure every form in turns; on a GPU the round ends with other precisions of the fastest form.

    Forms start side by side, before any of them has a turn; those that are to start ``alone`` do so first."""

    def tried(row: Row, act: Callable[..., Any], *given: Any) -> Any:
        """Return a function's result, or True where it has none; None if it failed, which the row then says."""
        try:
            return act(*given) or True
        except (RuntimeError, OSError, ValueError) as error:
            row.rounds.append({"error": str(error)})
            console.print(f"{name}, {row.form} failed: {error}")
            return None

    def measure_group(group: list[Row]) -> None:
        begun: dict[int, Running] = {}

        def begin(row: Row) -> None:
            if process := tried(row, start, row.form, job):
                begun[id(row)] = process
                started.callback(process.close)

        with ExitStack() as started:
            pool = ThreadPoolExecutor(CORES)
            started.callback(pool.shutdown, cancel_futures=True)
            for row in group:
                if alone(row.form):
                    begin(row)
            list(pool.map(begin, [row for row in group if not alone(row.form)]))
            left = [(row, begun[id(row)]) for row in group if id(row) in begun]
            for _ in range(job["turns"]):
                left = [(row, process) for row, process in left if tried(row, process.turn)]
            for row, process in left:
                if found := tried(row, end, process):
                    row.rounds.append(found)

    for group in _groups(rows, job):
        measure_group(group)
    fastest = best(rows, "fused")
    if fastest and job["cuda"] and rows[-1].form.precision == "fp32":
        more = [Row(replace(fastest.form, precision=precision)) for precision in ("tf32", "bf16")]
        rows += more
        for row in more:
            measure_group([row])
