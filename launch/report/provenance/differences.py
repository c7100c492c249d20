"""What differs between the configurations of a report's cells: differences only."""

from collections.abc import Sequence

from launch.report.analysis.cells import Cell
from launch.report.analysis.tables import Entry, Table
from stn.config import registry

AXES = {"arch.name", "data.name", "data.root", "train.seeds", "train.threads", "train.time_limit"}
"""Named in every table, or without a bearing on the numbers."""
NONE = {"data.limit_train": "all", "data.limit_test": "all", "arch.size": "the network's own"}
"""What None means; elsewhere none."""
MOST_NAMES = 8
"""Cells by name for each value; of more, their number."""


def flat(cell: Cell) -> dict[str, str]:
    """Return the fields of a configuration, without options that its architecture does not take."""
    sections = cell.config.model_dump(mode="json", exclude={"log": True, "checkpoint": True})
    try:
        taken = {"net", *registry.find("arch", cell.arch).options}
    except ValueError:  # the architecture no longer exists
        taken = {key for key, value in sections["arch"].items() if value is not None}
    sections["arch"] = {key: value for key, value in sections["arch"].items() if key in taken}
    fields = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {
        key: NONE.get(key, "none") if value is None else _text(value)
        for key, value in fields.items()
        if key not in AXES
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "nothing"
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def _named(having: Sequence[Cell], cells: Sequence[Cell], most: bool) -> str:
    """Name these cells among all: by architecture or by data set alone, where that says which they are.

    Those that have the most common value are otherwise "all others".
    """
    for name in (lambda cell: cell.label, lambda cell: cell.dataset):
        names = {name(cell) for cell in having}
        if sum(name(cell) in names for cell in cells) == len(having):
            break
    else:
        if most:
            return "all others"
        names = {f"{cell.label} on {cell.dataset}" for cell in having}
    return ", ".join(sorted(names)) if len(names) <= MOST_NAMES else f"{len(names)} cells"


def differences(cells: Sequence[Cell]) -> Table | None:
    """Return the fields that differ between cells, and which cells have which value; None if there are none."""
    configs = [flat(cell) for cell in cells]
    rows = []
    for key in sorted({key for config in configs for key in config}):
        by_value: dict[str, list[Cell]] = {}
        for cell, config in zip(cells, configs, strict=True):
            if key in config:
                by_value.setdefault(config[key], []).append(cell)
        if len(by_value) > 1:
            ordered = sorted(by_value.items(), key=lambda item: (-len(item[1]), item[0]))
            named = [f"{value}: {_named(having, cells, i == 0)}" for i, (value, having) in enumerate(ordered)]
            rows.append([Entry(key, key), Entry("; ".join(named))])
    return Table(["field", "values"], rows) if rows else None
