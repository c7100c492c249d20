"""The report as Markdown and CSV."""

import csv
import io
import itertools
from typing import Any

from launch.report.data import Cell, warnings
from launch.report.stats import FEWEST_PAIRS, Pairing, compare, holm, summary
from stn.config import format_seeds

METRIC, BEST = "test_acc", "best_test_acc"
FIELDS: list[str] = ["dataset", "arch", "setting", "sig", "seed", "status", "reason", METRIC, BEST, "best_epoch"]
FIELDS += ["test_loss", "macro_f1", "params", "steps", "images_per_s", "wall_s", "weights_sha256"]


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _cell(text: object) -> str:
    """Text in a table, whatever is in it."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def table(headings: list[str], rows: list[list[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def pairings(cells: list[Cell]) -> list[tuple[Cell, Cell, Pairing, float | None]]:
    """Every two cells on the seeds that both have, p corrected for how many are compared on this data set."""
    pairs = [(a, b, compare(a.values(METRIC), b.values(METRIC))) for a, b in itertools.combinations(cells, 2)]
    tested = [found.p for _, _, found in pairs if found.p is not None]
    corrected = iter(holm(tested))
    return [(a, b, found, next(corrected) if found.p is not None else None) for a, b, found in pairs]


def architectures(cells: list[Cell]) -> str:
    rows: list[list[object]] = []
    for cell in cells:
        values = list(cell.values(METRIC).values())
        if not values:
            rows.append([cell.label, 0, *["-"] * 9])
            continue
        found, best = summary(values), list(cell.values(BEST).values())
        first = next(iter(cell.rows.values()))
        speed, time = (list(cell.values(key).values()) for key in ("images_per_s", "wall_s"))
        between = f"{_percent(found.low)} to {_percent(found.high)}" if found.sd is not None else "-"
        line: list[object] = [cell.label, found.n, _percent(found.mean), _percent(found.sd), between]
        line += [_percent(found.median), f"{_percent(found.most)} / {_percent(found.least)}"]
        line += [_percent(summary(best).mean) if best else "-", f"{first['params']:,}" if "params" in first else "-"]
        rows.append(line + [f"{summary(one).median:,.0f}" if one else "-" for one in (speed, time)])
    headings = ["architecture", "n", "mean %", "SD", "95 % interval", "median", "best / worst seed"]
    return table([*headings, "best epoch's mean %", "parameters", "images/s", "s"], rows)


def comparisons(cells: list[Cell]) -> str:
    rows: list[list[object]] = []
    for a, b, found, corrected in pairings(cells):
        line: list[object] = [f"{b.label} - {a.label}", found.n]
        if found.difference is None:
            rows.append([*line, *["-"] * 5])
            continue
        d = found.difference
        between = f"{_percent(d.low)} to {_percent(d.high)}" if d.sd is not None else "-"
        claim = f"too few pairs (under {FEWEST_PAIRS})" if corrected is None else f"{corrected:.4g}"
        effect = "-" if found.effect is None else f"{found.effect:.2f}"
        rows.append([*line, f"{100 * d.mean:+.2f}", between, claim, effect, found.seeds or "-"])
    headings = ["second - first", "pairs", "points", "95 % interval", "p (sign flips, Holm)", "d_z"]
    return table([*headings, "seeds for 80 % power"], rows)


def _not_there(cells: list[Cell]) -> list[str]:
    lines = [f"- {_cell(cell.label)}: seeds {format_seeds(cell.missing)} are missing" for cell in cells if cell.missing]
    for cell in cells:
        lines += [
            f"- {_cell(cell.label)}: seed {seed} failed: {_cell(reason)}"
            for seed, reason in sorted(cell.failed.items())
        ]
    return lines


def markdown(cells: list[Cell]) -> str:
    """The whole report."""
    parts = ["# Comparison"]
    if not cells:
        parts.append("There are no run directories here.")
    for dataset, members in itertools.groupby(cells, key=lambda cell: cell.dataset):
        group = list(members)
        parts += [f"## {dataset}", "Accuracy on the test set after the last epoch, over seeds.", architectures(group)]
        parts += [f"**Warning:** {text}." for text in warnings(group)]
        lines = _not_there(group)
        parts += ["\n".join(lines)] if lines else []
        if len(group) > 1:
            parts += ["### Pairs of seeds", comparisons(group)]
    return "\n\n".join(parts) + "\n"


def rows_csv(cells: list[Cell]) -> str:
    """A line per seed, those that failed or are missing as well."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for cell in cells:
        own: dict[str, Any] = {"dataset": cell.dataset, "arch": cell.arch, "setting": cell.setting, "sig": cell.sig}
        for _, row in sorted(cell.rows.items()):
            writer.writerow(row | own)
        for seed, reason in sorted(cell.failed.items()):
            writer.writerow(own | {"seed": seed, "status": "failed", "reason": reason})
        for seed in cell.missing:
            writer.writerow(own | {"seed": seed, "status": "missing"})
    return text.getvalue()
