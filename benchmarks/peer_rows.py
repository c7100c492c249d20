"""The tables of peers.py: a row's measurements, and its ratios to the best peer."""

import statistics
from typing import Any

from measure import console
from measured import Form, Row, text
from rich.table import Table

PEERS = {
    "accelerate": ("accelerate",),
    "lightning": ("lightning",),
    "timm": ("timm",),
    "vmap": ("torch",),
    "jax": ("jax", "flax", "optax"),
}
"""Peers with the packages that they need."""


def label(form: Form) -> str:
    name = "ours" if form.kind == "fused" else form.kind
    return f"{name}, {form.seeds} seed{'s' * (form.seeds > 1)}"


def spread(row: Row) -> tuple[float, float]:
    """Return the lowest and highest images/s of the rounds; of a single one, those of its turns."""
    if len(row.speeds) > 1:
        return min(row.speeds), max(row.speeds)
    good = [r for r in row.rounds if "error" not in r]
    sums = [sum(parts) for r in good for parts in zip(*(p["images_per_s"][1:] for p in r["processes"]), strict=False)]
    return min(sums, default=0.0), max(sums, default=0.0)


def values(row: Row, key: str) -> list[float]:
    return [r[key] for r in row.rounds if key in r]


def ratio(row: Row, peers: list[Row], key: str, less: bool = False, own: str | None = None) -> float | None:
    """Return the ratio to the best of the peers, or to the least, as the median over rounds that have both.

    ``own`` is what is compared of the row, if not the same."""
    own = own or key
    peers = [peer for peer in peers if values(peer, key)]
    if not peers:
        return None
    best = (min if less else max)(peers, key=lambda peer: statistics.median(values(peer, key)))
    pairs = [(a[own], b[key]) for a, b in zip(row.rounds, best.rounds, strict=False) if own in a and key in b]
    return statistics.median(b / a if less else a / b for a, b in pairs) if pairs else None


def ratios(row: Row, rows: list[Row]) -> dict[str, float | None]:
    """Return the speed-up over the best peer in as many processes, and how much sooner as many seeds have results."""
    peers = [r for r in rows if r.form.kind in PEERS and r.form.processes == row.form.processes]
    alike = [r for r in peers if r.form.seeds == row.form.seeds]
    return {
        "x best peer": ratio(row, peers, "images_per_s"),
        "x best per CPU s": ratio(row, peers, "images_per_cpu_s"),
        "x soonest": ratio(row, alike, "ready_s", less=True),
        "x exited": ratio(row, alike, "ready_s", less=True, own="exit_s"),
        "x least CPU s": ratio(row, alike, "result_cpu_s", less=True),
    }


def describe(row: Row, rows: list[Row]) -> dict[str, Any]:
    """Return what the table and the record say of a row."""
    (low, high), seconds, exits = spread(row), values(row, "ready_s"), values(row, "exit_s")
    cpu, cpu_s = values(row, "images_per_cpu_s"), values(row, "result_cpu_s")
    accuracy = [a for r in row.rounds for a in r.get("accuracy", [])]
    return {
        "images_per_s": row.median,
        "low": low,
        "high": high,
        "n": len(row.speeds),
        "images_per_cpu_s": statistics.median(cpu) if cpu else None,
        "result_cpu_s": statistics.median(cpu_s) if cpu_s else None,
        "result_s": statistics.median(seconds) if seconds else None,
        "result_low_s": min(seconds, default=None),
        "result_high_s": max(seconds, default=None),
        "exit_s": statistics.median(exits) if exits else None,
        "accuracy": statistics.mean(accuracy) if accuracy else None,
        **ratios(row, rows),
    }


COLUMNS = {
    "x best": "x best peer",
    "per CPU s": "images_per_cpu_s",
    "x best ": "x best per CPU s",
    "result, s": "result_s",
    "x": "x soonest",
    "exit, s": "exit_s",
    "CPU s": "result_cpu_s",
    "x ": "x least CPU s",
    "accuracy": "accuracy",
}
"""Columns of the table after the range, with the names of their values."""


def draw(title: str, rows: list[Row]) -> None:
    table = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for heading in ("form", "in", "images/s", "range", *COLUMNS, "others"):
        table.add_column(heading, justify="left" if heading == "form" else "right", no_wrap=True)
    for row in rows:
        found = describe(row, rows)
        span = f"{found['low']:,.0f}-{found['high']:,.0f}" if row.speeds else "failed"
        cells = [number(found[name]) for name in ("images_per_s", *COLUMNS.values())]
        cells.insert(1, span)
        table.add_row(label(row.form), str(row.form.processes), *cells, f"{row.most('others_cores'):.2f}")
    console.print(table)


def number(value: float | None) -> str:
    return f"{value:,.0f}" if value and value >= 1000 else text(value)
