"""What a report is about: cells of architecture x data set x setting with their seeds, read from run directories.

Must not know how it is shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.collect import find_runs
from launch.sweep import load_plan
from stn.config import build_config, parse_seeds, read_yaml
from stn.files import read_json
from stn.rundir import Row, RunDir
from stn.schema import Config


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
        return {s: row[metric] for s, row in sorted(self.rows.items()) if isinstance(row.get(metric), int | float)}

    def environments(self) -> list[dict[str, Any]]:
        return [read_json(run.env) for run in self.runs]


def _asked_for(folder: Path) -> dict[str, set[int]]:
    """Seeds of each experiment of a sweep, by its manifest."""
    if not (folder / "sweep" / "manifest.jsonl").is_file():
        return {}
    asked: dict[str, set[int]] = {}
    for job in load_plan(folder / "sweep").jobs:
        asked.setdefault(job.sig, set()).update(parse_seeds(job.seeds))
    return asked


def _own_seeds(run: RunDir) -> set[int]:
    try:
        return set(parse_seeds(run.path.name))
    except ValueError:
        return set(run.rows())


def _flat(config: Config) -> dict[str, Any]:
    sections = config.model_dump(mode="json", exclude={"log", "checkpoint"})
    return {f"{s}.{k}": v for s, keys in sections.items() for k, v in keys.items() if k not in ("seeds", "root")}


def _settings(cells: list[Cell]) -> None:
    """Tell cells of the same architecture and data set apart by what differs between them."""
    for cell in cells:
        flats = [_flat(other.config) for other in cells if (other.arch, other.dataset) == (cell.arch, cell.dataset)]
        own = _flat(cell.config)
        cell.setting = " ".join(f"{k}={v}" for k, v in own.items() if any(flat.get(k) != v for flat in flats))


def load(paths: Iterable[str]) -> list[Cell]:
    """Cells of all run directories below these paths, in the order of data set and architecture."""
    cells: dict[tuple[Path, str], Cell] = {}
    asked: dict[Path, dict[str, set[int]]] = {}
    for run in find_runs(paths):
        folder, sig = run.path.parent.parent, run.path.parent.name
        if (folder, sig) not in cells:
            config = build_config(read_yaml(run.config), run.config)
            cells[folder, sig] = Cell(sig, config, run.path.parent)
        cell = cells[folder, sig]
        cell.runs.append(run)
        for seed, row in run.rows().items():
            if row.get("status") == "failed":
                cell.failed[seed] = str(row.get("reason"))
            else:
                cell.rows.setdefault(seed, row)
        wanted = asked.setdefault(folder, _asked_for(folder)).get(sig, set()) | _own_seeds(run)
        cell.missing = sorted((set(cell.missing) | wanted) - set(cell.rows) - set(cell.failed))
    found = sorted(cells.values(), key=lambda cell: (cell.dataset, cell.arch, cell.sig))
    _settings(found)
    return found


def warnings(cells: list[Cell]) -> list[str]:
    """What differs between cells of one data set that are compared, and should not."""
    said = []
    for what, values in (
        ("commits", lambda cell: {env.get("commit") for env in cell.environments()}),
        ("precisions", lambda cell: {cell.config.train.precision}),
        ("numbers of processes", lambda cell: {row.get("world_size") for row in cell.rows.values()}),
        ("lengths of training (steps)", lambda cell: {cell.config.train.steps}),
        ("batch sizes", lambda cell: {cell.config.data.batch_size}),
    ):
        found = {value for cell in cells for value in values(cell)}
        if len(found) > 1:
            said.append(f"different {what} are compared: {', '.join(sorted(map(str, found)))}")
    if any(env.get("dirty") for cell in cells for env in cell.environments()):
        said.append("some runs were started with uncommitted changes")
    return said
