"""What is written from a claim's rows: the numbers that pages may quote, README.md and the figure."""

import io
import json
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any

import record_tables
from claim_rows import digest
from matplotlib.figure import Figure

from launch.report.analysis.cells import load
from launch.report.analysis.sections import build_sections
from launch.report.analysis.tables import Table
from launch.report.output.figures import seeds as draw_seeds
from launch.report.output.markdown import render_table

Claim = dict[str, Any]


def table(claim: Claim, folder: Path) -> record_tables.RecordTable:
    """Return the table of a claim's record; an empty one if claim.yaml names no table."""
    if not (name := claim.get("table")):
        return record_tables.RecordTable([], {})
    return getattr(record_tables, name)(json.loads((folder / "record.json").read_text()))


def numbers(claim: Claim, folder: Path) -> dict[str, float]:
    """Return what quotations may name: means, and quotients of a record's entries or their means; accuracies in %."""
    if "table" in claim:
        return table(claim, folder).numbers
    cells = load([str(folder / "runs")]).cells if (folder / "runs").is_dir() else []
    means = {cell.label: 100 * fmean(cell.values("test_acc").values()) for cell in cells}
    if not (folder / "record.json").is_file():
        return means
    record = json.loads((folder / "record.json").read_text())

    def entry(path: str) -> float:
        found = reduce(lambda value, key: value[key], path.strip().split(" > "), record)
        value = fmean(found) if isinstance(found, list) else float(found)
        return 100 * value if path.endswith(("_acc", "_accs")) else value

    values = {name: [entry(path) for path in text.split(" / ")] for name, text in claim["numbers"].items()}
    return means | {name: value[0] / value[1] if len(value) > 1 else value[0] for name, value in values.items()}


def _without_speeds(table: Table) -> Table:
    """Leave out what seeds cost: those of a claim may have been trained on several machines."""
    kept = [i for i, heading in enumerate(table.headings) if heading not in ("images/s", "time s", "seeds at once")]
    return Table([table.headings[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def write(folder: Path, claim: Claim) -> dict[str, bytes]:
    """Return README.md, and the figure of every seed."""
    parts = [f"# {claim['claim']}", "Written from the rows in this folder by `python benchmarks/claims.py write`."]
    facts = {"date": folder.name[:10], "hardware": claim["hardware"], "command": f"`{claim['command']}`"}
    facts |= {"uncommitted changes": claim["uncommitted"]} if "uncommitted" in claim else {}
    facts |= {"rows": f"`{digest(folder)}`"}
    files: dict[str, bytes] = {}
    if (folder / "runs").is_dir():
        for section in build_sections(load([str(folder / "runs")]), folder):
            panel = section.panels[0]
            facts |= {"test": panel.rule, "n": ", ".join(f"{c.label} {len(c.rows)}" for c in section.cells)}
            parts += [f"## {section.name}", "\n".join(f"- {line}" for line in panel.verdicts)]
            parts += [render_table(_without_speeds(panel.architectures), links=False), f"`{panel.signature}`"]
            parts += [render_table(section.published, links=False)] if section.published else []
            figure = draw_seeds(section.charts, panel.metric)
            files["figure.png"] = png(figure, digest(folder))
        parts.append("![Every seed, mean and interval](figure.png)")
    if (folder / "record.json").is_file():
        facts.setdefault("n", str(claim.get("n")))
        parts += ["\n".join(lines)] if (lines := table(claim, folder).lines) else []
        values = numbers(claim, folder).items()
        parts.append("\n".join(f"- {name}: {value:,.{0 if value >= 100 else 2}f}" for name, value in values))
    about = "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())])
    text = "\n\n".join([*parts[:2], about, *parts[2:]]) + "\n"
    return {"README.md": text.encode()} | files


def png(figure: Figure, rows: str) -> bytes:
    """Return a figure as a PNG that carries the hash of its rows."""
    figure.savefig(buffer := io.BytesIO(), format="png", dpi=130, metadata={"Description": rows, "Software": None})
    return buffer.getvalue()
