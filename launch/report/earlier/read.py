"""Reads the rows of an earlier report, or of earlier run directories."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from launch.report.analysis.cells import Cell, is_number, load
from stn.runs.directory import find_runs

ROWS = "rows.csv"
NEEDED = ("dataset", "arch", "seed", "status")
STATES = ("finished", "failed", "missing")
WHAT = "give the folder of an earlier report, its rows.csv, or a folder of run directories"


def shown(text: str) -> str:
    """Return a name from a file as a message may hold it: short, and printable."""
    return text[:60] if text[:60].isprintable() else ascii(text[:60])


@dataclass
class EarlierCell:
    """The seeds of one architecture, data set and setting, as they were."""

    dataset: str
    arch: str
    setting: str = ""
    sig: str = ""
    numbers: dict[str, dict[int, float]] = field(default_factory=dict)
    """Values by metric and seed, of the finished seeds."""
    seeds: dict[int, str] = field(default_factory=dict)
    """The status of each seed."""

    @property
    def label(self) -> str:
        return f"{self.arch} {self.setting}".strip()

    @property
    def name(self) -> str:
        return f"{self.label} on {self.dataset}"

    @classmethod
    def of(cls, cell: Cell) -> "EarlierCell":
        seeds = dict.fromkeys(cell.rows, "finished") | dict.fromkeys(cell.failed, "failed")
        earlier = cls(cell.dataset, cell.arch, cell.setting, cell.sig, {}, seeds)
        for seed, row in cell.rows.items():
            for key, value in row.items():
                if is_number(value):
                    earlier.numbers.setdefault(key, {})[seed] = value
        return earlier


def _number(text: str) -> float | None:
    """Return a field's number, or None if it is not one; csv has every value of a row, also hashes and names."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_number(value) else None


def _add(cells: dict[tuple[str, ...], EarlierCell], row: dict[str, str]) -> None:
    """Add a line of rows.csv; ValueError says what is wrong with it."""
    if None in row or None in row.values():
        raise ValueError("has another number of fields than the first line")
    if not (row["seed"].isascii() and row["seed"].isdigit() and len(row["seed"]) < 11):
        raise ValueError(f"seed '{shown(row['seed'])}' is not a number")
    if row["status"] not in STATES:
        raise ValueError(f"status '{shown(row['status'])}' is none of {', '.join(STATES)}")
    names = (row["dataset"], row["arch"], row.get("setting", ""), row.get("sig", ""))
    cell, seed = cells.setdefault(names, EarlierCell(*names)), int(row["seed"])
    if seed in cell.seeds:
        raise ValueError(f"seed {seed} of {shown(cell.name)} is there twice")
    cell.seeds[seed] = row["status"]
    if row["status"] == "finished":
        for key, text in row.items():
            if key.endswith(("_acc", "_loss", "_f1")) and text and _number(text) is None:
                raise ValueError(f"{shown(key)} '{shown(text)}' is not a number")
            if (value := _number(text)) is not None and key not in (*NEEDED, "setting", "sig"):
                cell.numbers.setdefault(key, {})[seed] = value


def read_rows_csv(path: Path) -> list[EarlierCell]:
    """Read a report's rows.csv; ValueError if it is not one, or damaged."""
    cells: dict[tuple[str, ...], EarlierCell] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if absent := [key for key in NEEDED if key not in (reader.fieldnames or ())]:
                raise ValueError(f"{path} is not the rows.csv of a report: it has no column '{absent[0]}'")
            for row in reader:
                try:
                    _add(cells, row)
                except ValueError as error:
                    raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not the rows.csv of a report: {error}") from None
    return list(cells.values())


def read_earlier(path: Path) -> list[EarlierCell]:
    """Read what a report is to be compared with; ValueError if there is nothing."""
    if not path.exists():
        raise ValueError(f"--against {path}: no such file or folder; {WHAT}")
    if path.is_file() and path.suffix != ".csv":
        if path.name not in ("index.html", "report.md") or not path.with_name(ROWS).is_file():
            raise ValueError(f"--against {path}: it is no page of a report with {ROWS} beside it; {WHAT}")
        path = path.with_name(ROWS)
    file = path if path.is_file() else path / ROWS
    if file.is_file():
        cells = read_rows_csv(file)
    elif path.is_dir() and find_runs([str(path)]):
        cells = [EarlierCell.of(cell) for cell in load([str(path)]).cells]
    else:
        raise ValueError(f"--against {path}: there is no {ROWS} and no run directory; {WHAT}")
    if not any(cell.seeds for cell in cells):
        raise ValueError(f"--against {path}: it has no seed")
    return cells
