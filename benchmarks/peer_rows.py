"""The tables of peers.py: what a row says beside its images/s, and its ratios to the best peer."""

import statistics
from typing import Any

import fused
from fused import Form, Row
from measure import console
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
    """Return the lowest and highest images/s of the rounds; of a single one, those of its stretches."""
    if len(row.speeds) > 1:
        return min(row.speeds), max(row.speeds)
    good = [r for r in row.rounds if "error" not in r]
    sums = [sum(parts) for r in good for parts in zip(*(p["images_per_s"][1:] for p in r["processes"]), strict=False)]
    return min(sums, default=0.0), max(sums, default=0.0)


def results(row: Row) -> list[float]:
    return [r["ready_s"] for r in row.rounds if "ready_s" in r]


def sooner(row: Row, other: Row | None) -> float | None:
    """Return how many times sooner the result is there, the median over the rounds that have both."""
    pairs = zip(row.rounds, other.rounds if other else [], strict=False)
    ratios = [b["ready_s"] / a["ready_s"] for a, b in pairs if "ready_s" in a and "ready_s" in b]
    return statistics.median(ratios) if ratios else None


def ratios(row: Row, rows: list[Row]) -> dict[str, float | None]:
    """Return the speed-up over the best peer in as many processes, and for one seed how much sooner its result is."""
    like = [r for r in rows if r.form.kind in PEERS and r.form.processes == row.form.processes and r.speeds]
    first = [r for r in like if r.form.seeds == row.form.seeds and results(r)]
    return {
        "x best peer": row.over(max(like, key=lambda r: r.median, default=None)),
        "x soonest": sooner(row, min(first, key=lambda r: statistics.median(results(r)), default=None)),
    }


def describe(row: Row, rows: list[Row]) -> dict[str, Any]:
    """Return what the table and the record say of a row."""
    (low, high), seconds = spread(row), results(row)
    accuracy = [a for r in row.rounds for a in r.get("accuracy", [])]
    return {
        "images_per_s": row.median,
        "low": low,
        "high": high,
        "n": len(row.speeds),
        "result_s": statistics.median(seconds) if seconds else None,
        "result_low_s": min(seconds, default=None),
        "result_high_s": max(seconds, default=None),
        "accuracy": statistics.mean(accuracy) if accuracy else None,
        **ratios(row, rows),
    }


def draw(title: str, rows: list[Row]) -> None:
    table = Table(title=title, title_justify="left")
    headings = (
        "processes",
        "images/s",
        "range",
        "n",
        "x best peer",
        "to the result, s",
        "x soonest",
        "accuracy",
        "others",
    )
    for heading in ("form", *headings):
        table.add_column(heading, justify="left" if heading == "form" else "right")
    for row in rows:
        f = describe(row, rows)
        span = f"{f['low']:,.0f} to {f['high']:,.0f}" if row.speeds else "failed"
        timed = (fused.text(f[key]) for key in ("result_s", "x soonest", "accuracy"))
        cells = [f"{f['images_per_s']:,.0f}", span, str(f["n"]), fused.text(f["x best peer"]), *timed]
        table.add_row(label(row.form), str(row.form.processes), *cells, f"{row.most('others_cores'):.2f}")
    console.print(table)
