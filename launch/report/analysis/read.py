"""Reads the cells of a comparison from run directories and the manifests of sweeps."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from launch.report.analysis.cells import Cell, Comparison, label_settings
from launch.sweep.plan import load_plan
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import load_yaml
from stn.runs.directory import RunDir, find_runs
from stn.runs.files import parse_rows, read_text


class _Reader:
    """Collects cells by experiment while it reads manifests and run directories."""

    def __init__(self) -> None:
        self.cells: dict[tuple[Path, str], Cell] = {}
        self.requested: dict[tuple[Path, str], set[int]] = {}
        self.notes: list[str] = []

    def _cell(self, folder: Path, sig: str, config: Path) -> Cell | None:
        """Return the cell of an experiment, or note that its configuration cannot be read."""
        if (folder, sig) not in self.cells:
            try:
                self.cells[folder, sig] = Cell(sig, load_yaml(config), folder / sig)
            except (ValueError, OSError) as error:
                self.notes.append(f"left out: {error}")
                return None
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
        for job in plan.jobs:
            below = any((folder / job.sig).is_relative_to(path) for path in paths)
            if below and (cell := self._cell(folder, job.sig, plan.cell_file(job))):
                cell.planned = job.setting
                self.requested.setdefault((folder, job.sig), set()).update(parse_seeds(job.seeds))

    def read_run(self, run: RunDir) -> None:
        folder, sig = run.path.parent.parent, run.path.parent.name
        cell = self._cell(folder, sig, run.config)
        if cell is None:
            return
        self.requested.setdefault((folder, sig), set()).update(run.seeds or ())
        try:
            for path in (run.results, run.metrics, run.env):
                with suppress(FileNotFoundError):
                    path.open("rb").close()
        except OSError as error:
            self.notes.append(f"left out: {error}")
            return
        cell.runs.append(run)
        lines = read_text(run.results).splitlines()
        seeds = {seed for row in parse_rows(lines) if isinstance(seed := row.get("seed"), int)}
        if len(lines) > len(seeds):
            self.notes.append(f"{run.results}: skipped {len(lines) - len(seeds)} damaged or repeated lines")
        rows, known = run.rows(), cell.rows.keys() | cell.failed.keys()
        if repeated := sorted(rows.keys() & known):
            self.notes.append(f"{run.path}: skipped seeds {format_seeds(repeated)}, read from another run directory")
        for seed, row in rows.items():
            if seed in known:
                continue
            if row.get("status") == "failed":
                cell.failed[seed] = str(row.get("reason") or "no reason was recorded")
            else:
                cell.rows[seed] = row


def load(paths: Iterable[str]) -> Comparison:
    """Read all experiments below these paths."""
    reader = _Reader()
    folders = [Path(path).resolve() for path in paths]
    runs = find_runs(map(str, folders))
    sweeps = [manifest.parent.parent for folder in folders for manifest in folder.glob("*/sweep/manifest.jsonl")]
    for folder in dict.fromkeys([*folders, *sweeps, *(run.path.parent.parent for run in runs)]):
        reader.read_plan(folder, folders)
    for run in runs:
        reader.read_run(run)
    for key, cell in reader.cells.items():
        cell.missing = sorted(reader.requested[key] - cell.rows.keys() - cell.failed.keys())
    label_settings(list(reader.cells.values()))
    cells = sorted(reader.cells.values(), key=lambda cell: (cell.dataset, cell.arch, cell.setting))
    return Comparison(", ".join(dict.fromkeys(path.name for path in folders)), cells, reader.notes)
