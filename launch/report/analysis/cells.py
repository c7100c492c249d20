"""Cells of architecture x data set x setting, and what else differs between cells that are compared."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.runs.files import parse_rows, read_json, read_text


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a number whose square is finite; booleans are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


@dataclass
class Cell:
    """One experiment: runs that differ in nothing but the seed."""

    sig: str
    config: Config
    folder: Path
    """Parent of the run directories."""
    runs: list[RunDir] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    """Result rows of the finished seeds."""
    failed: dict[int, str] = field(default_factory=dict)
    """Reasons of the failed seeds."""
    missing: list[int] = field(default_factory=list)
    """Seeds that were requested and have no result."""
    planned: str = ""
    """The setting's name in its sweep."""
    setting: str = ""
    """What distinguishes it from other cells of its architecture and data set."""

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
        """Return a metric of the finished seeds; seeds without it are left out."""
        return {seed: row[metric] for seed, row in sorted(self.rows.items()) if is_number(row.get(metric))}

    @cached_property
    def metrics(self) -> dict[str, dict[int, list[Row]]]:
        """Evaluation and pose rows of the finished seeds, by kind and seed, in the order of training."""
        metrics: dict[str, dict[int, list[Row]]] = {"eval": {}, "pose": {}}
        for run in reversed(self.runs):  # of two run directories with the same seed, the first counts
            rows_of_run: dict[tuple[str, int], list[Row]] = {}
            # Most lines are of other kinds and not worth parsing.
            lines = [s for s in read_text(run.metrics).splitlines() if '"eval"' in s[:40] or '"pose"' in s[:40]]
            for row in parse_rows(lines):
                kind, seed = row.get("kind"), row.get("seed")
                if kind in ("eval", "pose") and isinstance(seed, int) and seed in self.rows:
                    rows_of_run.setdefault((kind, seed), []).append(row)
            for (kind, seed), rows in rows_of_run.items():
                metrics[kind][seed] = rows
        return metrics


@dataclass
class Comparison:
    """Everything that a report is about."""

    name: str
    cells: list[Cell]
    """In the order of data set and architecture."""
    notes: list[str]
    """What could not be read."""


def label_settings(cells: list[Cell]) -> None:
    """Give cells of the same architecture and data set the shortest settings that distinguish them."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.arch, cell.dataset), []).append(cell)
    for group in groups.values():
        for cell, setting in zip(group, _settings(group), strict=True):
            cell.setting = setting


def _settings(cells: list[Cell]) -> list[str]:
    if len(cells) == 1:
        return [""]
    flat_configs = []
    for cell in cells:
        sections = cell.config.model_dump(
            mode="json", exclude={"log": True, "checkpoint": True, "train": {"seeds"}, "data": {"root"}}
        )
        flat_configs.append({f"{s}.{k}": v for s, keys in sections.items() for k, v in keys.items()})
    options = []
    for flat in flat_configs:
        differing = [key for key, value in flat.items() if any(other.get(key) != value for other in flat_configs)]
        options.append(" ".join(f"{key}={flat[key]}" for key in differing))
    for settings in (
        [cell.planned for cell in cells],
        [f"({cell.folder.parent.name})" for cell in cells],
        options,
        [f"{option} ({cell.folder.parent.name})".strip() for option, cell in zip(options, cells, strict=True)],
    ):
        if len(set(settings)) == len(cells):
            return settings
    return [f"{option} ({cell.folder})".strip() for option, cell in zip(options, cells, strict=True)]


def confounders(cells: list[Cell]) -> list[str]:
    """Return warnings about differences, other than the architecture, between cells of one data set."""
    environments = [read_json(run.env) for cell in cells for run in cell.runs]
    packages = [env.get("packages") for env in environments]
    rows = [row for cell in cells for row in cell.rows.values()]
    facts: dict[str, list[Any]] = {
        "commits": [str(env.get("commit"))[:12] for env in environments],
        "devices": [env.get("device_name") or env.get("device") for env in environments],
        "versions of torch": [names.get("torch") if isinstance(names, dict) else None for names in packages],
        "precisions": [cell.config.train.precision for cell in cells],
        "numbers of processes": [row.get("world_size") for row in rows],
        "lengths of training (steps)": [row.get("steps") for row in rows],
        "batch sizes": [cell.config.data.batch_size for cell in cells],
        "numbers of validation images": [cell.config.data.validation for cell in cells],
    }
    warnings = []
    for name, values in facts.items():
        distinct = sorted(set(map(str, values)))
        if len(distinct) > 1:
            warnings.append(f"different {name} are compared: {', '.join(distinct)}")
    if any(env.get("dirty") for env in environments):
        warnings.append("some runs were started with uncommitted changes")
    return warnings
