"""Time operations of vision networks, forward and backward: 4 seeds as one network and 4 plain modules, in turns.

    python benchmarks/operations.py [--quick] [--only gelu,conv2d] [--threads 1,2] [--json FILE]

Each operation is a small network (operation_list.py) on batches of 64: maps of 32 channels and 14x14 pixels, sequences
of 49 x 64. Four of its seeds run as StackedModel, as train.py trains them, and four ordinary modules in a loop. Both
are in this process and take turns; a turn lasts 20 ms or more. With one thread CPU time is measured, which other
processes disturb less. The input of the seeds is in memory as convolutions of several seeds leave it, that of a plain
module as torch makes it.

A ratio is the median over pairs of turns: 4 modules' time over the network's, so above 1 one network is faster. The
range holds the middle half of the pairs. Exit code 1 if an operation is under 0.9, after up to three measurements, and
operation_list.SLOWER gives no reason.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from measure import CORES, DISTURBED, Parser, console, machine, names_from, others_s, positive, save
from measured import Form, Row, text
from rich.table import Table

from stn.runs.cores import share_cores
from stn.runs.process import keep_freed_memory

if TYPE_CHECKING:
    from operation_list import Operation

SEEDS = 4
LEAST = 0.9
TURN_S = 0.02
Pass = Callable[[], Any]


def prepare(operation: "Operation", seeds: int = SEEDS) -> tuple[Pass, Pass, set[str]]:
    """Return a pass of all seeds as one network, that of plain modules, and the names of operations without a rule."""
    import torch

    from stn.multiseed.model import StackedModel
    from stn.multiseed.rules.order import side_by_side, split_seeds

    x_S = torch.randn(seeds, *operation.shape)
    model = StackedModel(operation.build, list(range(seeds))).train()
    modules = [operation.build() for _ in range(seeds)]
    if operation.by_channels:
        x_S = split_seeds(side_by_side(x_S), seeds).every
    own = [x.contiguous().requires_grad_() for x in x_S.detach().unbind()]
    x_S.requires_grad_()
    row_B, needed, steps = torch.arange(operation.shape[0]), [x_S, *model.parameters()], iter(range(10**9))
    up_S = torch.randn_like(model(x_S, 0, row_B).detach())
    ups = [up.contiguous() for up in up_S]

    def together() -> None:
        torch.autograd.grad(model(x_S, next(steps), row_B), needed, up_S, allow_unused=True)

    def alone() -> None:
        for module, x, up in zip(modules, own, ups, strict=True):
            torch.autograd.grad(module(x), [x, *module.parameters()], up, allow_unused=True)

    return together, alone, model.slow


def measure(together: Pass, alone: Pass, rows: tuple[Row, Row], images: int, pairs: int) -> None:
    """Add a round to both rows for each pair of turns, and let the other begin each time."""
    import torch

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def turn(run: Pass, times: int) -> float:
        start = clock()
        for _ in range(times):
            run()
        return (clock() - start) / times

    sides = list(zip((together, alone), rows, strict=True))
    for run, _ in sides:
        turn(run, 2)
    times = [max(1, round(TURN_S / turn(run, 1))) for run, _ in sides]
    for i in range(pairs):
        for (run, row), n in list(zip(sides, times, strict=True))[:: 1 if i % 2 else -1]:
            seconds = turn(run, n)
            row.rounds.append({"images_per_s": images / seconds, "ms": round(1e3 * seconds, 3)})


def time_operation(name: str, operation: "Operation", pairs: int, explained: bool) -> tuple[Row, Row, list[str]]:
    together, alone, slow = prepare(operation)
    rows = Row(Form(name, seeds=SEEDS)), Row(Form("alone"))
    for _ in range(1 if explained else 3):
        measure(together, alone, rows, SEEDS * operation.shape[0], pairs)
        if (rows[0].over(rows[1]) or 0.0) >= LEAST:
            break
    return *rows, sorted(slow)


def middle_half(row: Row, other: Row) -> tuple[float, float]:
    ratios = [a / b for a, b in zip(row.speeds, other.speeds, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return low, high


def summary(row: Row, alone: Row) -> dict[str, Any]:
    """Return what the record keeps of an operation."""
    ms, ms_alone = (statistics.median(r["ms"] for r in each.rounds) for each in (row, alone))
    low, high = middle_half(row, alone)
    return {
        "x alone": round(row.over(alone) or 0.0, 3),
        "middle_half": [round(low, 3), round(high, 3)],
        "ms": ms,
        "ms_alone": ms_alone,
        "n": len(row.rounds),
    }


def draw(title: str, table_rows: list[tuple[Row, Row, list[str]]], slower: dict[str, str]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("operation", "ms as one", "ms alone", "ratio", "middle half", "n", "no rule", "slower for"):
        table.add_column(heading, justify="right" if heading in ("ms as one", "ms alone", "ratio", "n") else "left")
    for row, other, slow in table_rows:
        found = summary(row, other)
        why = slower.get(row.form.kind, "UNKNOWN") if found["x alone"] < LEAST else ""
        spread = "{:.2f} to {:.2f}".format(*found["middle_half"])
        shown = (f"{found['ms']:.2f}", f"{found['ms_alone']:.2f}", text(found["x alone"]), spread, str(found["n"]))
        table.add_row(row.form.kind, *shown, ", ".join(slow), why)
    console.print(table)


def main() -> int:
    share_cores()  # before torch is imported
    import torch
    from operation_list import OPERATIONS, REASONS, SLOWER

    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="5 pairs of turns instead of 15")
    parser.add_argument("--only", type=names_from(OPERATIONS), default=list(OPERATIONS), metavar="NAME,NAME")
    parser.add_argument("--threads", type=lambda s: [positive(n) for n in s.split(",")], metavar="1,2")
    arguments = parser.parse_args()
    threads, pairs = arguments.threads or [1, 2][: min(2, CORES)], 5 if arguments.quick else 15
    record = machine(None) | {
        "seeds": SEEDS,
        "batch": 64,
        "pairs": pairs,
        "others_cores": {},
        "reasons": SLOWER | REASONS,
    }
    keep_freed_memory()  # as train.py does
    unexplained = []
    for count in threads:
        torch.set_num_threads(count)
        start, before = time.perf_counter(), others_s()
        name = f"{count} thread{'s' * (count > 1)}"
        rows = [time_operation(only, OPERATIONS[only], pairs, only in SLOWER) for only in arguments.only]
        others = max(0.0, others_s() - before) / (time.perf_counter() - start)
        draw(f"{name}: {SEEDS} seeds, forward and backward, over {SEEDS} plain modules", rows, SLOWER)
        if others > DISTURBED:
            console.print(f"Less reliable: other processes used {others:.1f} cores meanwhile.")
        record["others_cores"][name] = round(others, 3)
        record[name] = {row.form.kind: summary(row, alone) | {"no_rule": slow} for row, alone, slow in rows}
        low = [row.form.kind for row, alone, _ in rows if (row.over(alone) or 0.0) < LEAST]
        unexplained += [f"{only} ({name})" for only in low if only not in SLOWER]
    for reason, why in REASONS.items():
        console.print(f"{reason}: {why}")
    save(arguments.json, record)
    if unexplained:
        console.print(f"under {LEAST} without an entry that says why: {', '.join(unexplained)}")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
