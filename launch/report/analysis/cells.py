"""Cells of architecture x data set x setting, and what differs between them. Must not know how they are shown."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.runs.files import parse_rows, read_json, read_text

_OF_METRICS = ("eval", "pose")
"""Kinds of rows of metrics.jsonl that a report draws."""


def is_number(value: object) -> TypeGuard[float]:
    """One whose square is a number as well; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


@dataclass
class Cell:
    """One experiment: everything but the seed is the same."""

    sig: str
    config: Config
    folder: Path
    """Of the experiment: its run directories lie below."""
    runs: list[RunDir] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    """Seeds that have finished."""
    failed: dict[int, str] = field(default_factory=dict)
    """Seeds that have failed, with the reason."""
    missing: list[int] = field(default_factory=list)
    """Seeds that were asked for and have no result."""
    planned: str = ""
    """What its sweep calls it, beside architecture and data set."""
    setting: str = ""
    """What tells it from other cells of its architecture and data set."""

    @property
    def arch(self) -> str:
        return self.config.arch.name

    @property
    def dataset(self) -> str:
        return self.config.data.name

    @property
    def label(self) -> str:
        return f"{self.arch} {self.setting}".strip()

    def values(self, metric: str) -> dict[int, float]:
        """A figure of the finished seeds; seeds without it are left out."""
        found = ((seed, row.get(metric)) for seed, row in sorted(self.rows.items()))
        return {seed: value for seed, value in found if is_number(value)}

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        return [read_json(run.env) for run in self.runs]

    @cached_property
    def metrics(self) -> dict[str, dict[int, list[Row]]]:
        """Evaluations and poses of finished seeds, by kind and seed, in the order of training."""
        found: dict[str, dict[int, list[Row]]] = {kind: {} for kind in _OF_METRICS}
        for run in self.runs:
            own: dict[str, dict[int, list[Row]]] = {kind: {} for kind in _OF_METRICS}
            lines = read_text(run.metrics).splitlines()  # most are of other kinds, and not worth parsing
            for row in parse_rows([line for line in lines if '"eval"' in line[:40] or '"pose"' in line[:40]]):
                if row.get("kind") in _OF_METRICS and isinstance(row.get("seed"), int) and row["seed"] in self.rows:
                    own[row["kind"]].setdefault(row["seed"], []).append(row)
            found = {kind: own[kind] | found[kind] for kind in _OF_METRICS}  # of a seed in two of them, the first
        return found


@dataclass
class Comparison:
    """All that a report is about."""

    name: str
    cells: list[Cell]
    """In the order of data set and architecture."""
    notes: list[str]
    """What could not be read."""


def _flat(config: Config) -> dict[str, Any]:
    sections = config.model_dump(mode="json", exclude={"log", "checkpoint"})
    return {f"{s}.{k}": v for s, keys in sections.items() for k, v in keys.items() if k not in ("seeds", "root")}


def tell_apart(cells: list[Cell]) -> None:
    """Name what differs between cells of the same architecture and data set, in as few words as do it."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.arch, cell.dataset), []).append(cell)
    for members in groups.values():
        for cell, setting in zip(members, _settings(members), strict=True):
            cell.setting = setting


def _settings(cells: list[Cell]) -> list[str]:
    if len(cells) == 1:
        return [""]
    flats = [_flat(cell.config) for cell in cells]
    options = [" ".join(f"{k}={v}" for k, v in own.items() if any(f.get(k) != v for f in flats)) for own in flats]
    names, folders = [cell.folder.parent.name for cell in cells], [cell.folder for cell in cells]
    for found in (
        [cell.planned for cell in cells],
        [f"({name})" for name in names],
        options,
        [f"{option} ({name})".strip() for option, name in zip(options, names, strict=True)],
    ):
        if len(set(found)) == len(cells):
            return found
    return [f"{option} ({folder})".strip() for option, folder in zip(options, folders, strict=True)]


def _torch(env: dict[str, Any]) -> object:
    packages = env.get("packages")
    return packages.get("torch") if isinstance(packages, dict) else None


def differences(cells: list[Cell]) -> list[str]:
    """What differs between cells of one data set that are compared, and should not."""
    said = []
    for what, values in (
        ("commits", lambda cell: [str(env.get("commit"))[:12] for env in cell.environments]),
        ("devices", lambda cell: [env.get("device_name") or env.get("device") for env in cell.environments]),
        ("versions of torch", lambda cell: [_torch(env) for env in cell.environments]),
        ("precisions", lambda cell: [cell.config.train.precision]),
        ("numbers of processes", lambda cell: [row.get("world_size") for row in cell.rows.values()]),
        ("lengths of training (steps)", lambda cell: [row.get("steps") for row in cell.rows.values()]),
        ("batch sizes", lambda cell: [cell.config.data.batch_size]),
        ("numbers of images for validation", lambda cell: [cell.config.data.validation]),
    ):
        found = {str(value) for cell in cells for value in values(cell)}
        if len(found) > 1:
            said.append(f"different {what} are compared: {', '.join(sorted(found))}")
    if any(env.get("dirty") for cell in cells for env in cell.environments):
        said.append("some runs were started with uncommitted changes")
    return said
