"""Cells of architecture x data set x setting, read from run directories and the manifests of sweeps."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

from launch.sweep.plan import load_plan
from stn.config.schema import Config
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir, find_runs
from stn.runs.files import parse_rows, read_text
from stn.runs.records import Metric, valid
from stn.runs.same_code import refuse_mixture


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
    sources: dict[int, RunDir] = field(default_factory=dict)
    """The run that each of these rows is from."""
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
        return self.config.data.label

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
        for run in self.runs:
            # Most lines are of other kinds and not worth parsing.
            lines = [s for s in read_text(run.metrics).splitlines() if '"eval"' in s[:40] or '"pose"' in s[:40]]
            for row in valid(parse_rows(lines), Metric):
                # Another run may have rows of the seed from a training that was abandoned.
                if row["kind"] in metrics and self.sources.get(row["seed"]) is run:
                    metrics[row["kind"]].setdefault(row["seed"], []).append(row)
        return metrics


@dataclass
class Comparison:
    """The cells of a report, in the order of data set and architecture."""

    name: str
    cells: list[Cell]
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
        if len(set(settings)) == len(cells) and all(settings):  # one that left its sweep's plan has no name there
            return settings
    return [f"{option} ({cell.folder})".strip() for option, cell in zip(options, cells, strict=True)]


class _Reader:
    """Collects cells by experiment while it reads manifests and run directories."""

    def __init__(self) -> None:
        self.cells: dict[tuple[Path, str], Cell] = {}
        self.requested: dict[tuple[Path, str], set[int]] = {}
        self.notes: list[str] = []

    def _cell(self, folder: Path, sig: str, config: Path, seeds: Iterable[int]) -> Cell:
        """Return the cell of an experiment; ValueError or OSError if its configuration cannot be read."""
        if (folder, sig) not in self.cells:
            self.cells[folder, sig] = Cell(sig, load_yaml(config), folder)
        self.requested.setdefault((folder, sig), set()).update(seeds)
        return self.cells[folder, sig]

    def read_plan(self, folder: Path, paths: list[Path]) -> None:
        """Read the sweep of an experiment's folder, if it has one: its jobs below these paths."""
        try:
            if not (folder / "sweep" / "manifest.jsonl").is_file():
                return
            plan = load_plan(folder / "sweep")
        except (ValueError, OSError) as error:
            self.notes.append(f"{error}: its missing seeds are unknown")
            return
        faults: dict[str, str] = {}
        for job in plan.jobs:
            home = folder / job.sig
            if any(home.is_relative_to(path) for path in paths):
                try:
                    self._cell(home, job.sig, plan.cell_file(job), parse_seeds(job.seeds)).planned = job.setting
                except (ValueError, OSError) as error:  # its run directories have the configuration, too
                    faults[job.sig] = f"{error}: its missing seeds are unknown"
        self.notes += faults.values()

    def read_run(self, run: RunDir) -> None:
        try:  # its path does not name the signature if it was moved, nor the seeds if they are many
            sig = run.sig or run.find_sig(run.rows().values())
            cell = self._cell(run.path.parent, sig, run.config, run.asked)
            for path in (run.results, run.metrics, run.env):
                with suppress(FileNotFoundError):
                    path.open("rb").close()
        except (ValueError, OSError) as error:
            self.notes.append(f"left out: {error}")
            return
        cell.runs.append(run)
        self.notes += run.skipped_lines()
        rows, known = run.rows(), cell.rows.keys() | cell.failed.keys()
        if repeated := sorted(rows.keys() & known):
            self.notes.append(f"{run.path}: skipped seeds {format_seeds(repeated)}, read from another run directory")
        for seed, row in rows.items():
            if seed in known:
                continue
            if row.get("status") == "failed":
                cell.failed[seed] = str(row.get("reason") or "no reason was recorded")
            else:
                cell.rows[seed], cell.sources[seed] = row, run


def load(paths: Iterable[str]) -> Comparison:
    """Read all experiments below these paths."""
    reader = _Reader()
    folders = [Path(path).resolve() for path in paths]
    runs = find_runs(map(str, folders))
    sweeps = [manifest.parent.parent for folder in folders for manifest in folder.glob("*/sweep/manifest.jsonl")]
    for folder in dict.fromkeys([*folders, *sweeps, *(run.path.parent.parent for run in runs)]):
        reader.read_plan(folder, folders)
    for run in sorted(runs, key=lambda run: run.path):  # whatever the order of the paths
        reader.read_run(run)
    for key, cell in reader.cells.items():
        refuse_mixture(cell.rows, cell.folder)
        cell.missing = sorted(reader.requested[key] - cell.rows.keys() - cell.failed.keys())
    label_settings(list(reader.cells.values()))
    cells = sorted(reader.cells.values(), key=lambda cell: (cell.dataset, cell.arch, cell.setting))
    return Comparison(", ".join(dict.fromkeys(path.name for path in folders)), cells, reader.notes)
