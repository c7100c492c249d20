"""Reads what a report is about from run directories and manifests. Must not know how it is shown."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from launch.report.analysis.cells import Cell, Comparison, tell_apart
from launch.sweep.plan import load_plan
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import load_yaml
from stn.runs.directory import RunDir, find_runs
from stn.runs.files import parse_rows, read_text


class _Reader:
    """Cells by experiment, as run directories and manifests are read."""

    def __init__(self) -> None:
        self.cells: dict[tuple[Path, str], Cell] = {}
        self.asked: dict[tuple[Path, str], set[int]] = {}
        self.notes: list[str] = []

    def cell(self, folder: Path, sig: str, config: Path) -> Cell | None:
        """The cell of an experiment; none where its configuration cannot be read, which is noted."""
        if (folder, sig) not in self.cells:
            try:
                found = load_yaml(config)
            except (ValueError, OSError) as error:
                self.notes.append(f"left out: {error}")
                return None
            self.cells[folder, sig] = Cell(sig, found, folder / sig)
        return self.cells[folder, sig]

    def plan(self, folder: Path, below: list[Path]) -> None:
        """The experiments of a sweep, those below these paths."""
        try:
            if not (folder / "sweep" / "manifest.jsonl").is_file():
                return
            plan = load_plan(folder / "sweep")
        except (ValueError, OSError) as error:
            self.notes.append(f"{error}: which seeds are missing is not known")
            return
        for job in plan.jobs:
            wanted = any((folder / job.sig).is_relative_to(path) for path in below)
            if wanted and (cell := self.cell(folder, job.sig, plan.cell_file(job))):
                cell.planned = job.setting
                self.asked.setdefault((folder, job.sig), set()).update(parse_seeds(job.seeds))

    def run(self, run: RunDir) -> None:
        folder, sig = run.path.parent.parent, run.path.parent.name
        cell = self.cell(folder, sig, run.config)
        if cell is None:
            return
        self.asked.setdefault((folder, sig), set()).update(run.seeds or ())
        try:
            for path in (run.results, run.metrics, run.env):
                with suppress(FileNotFoundError):
                    path.open("rb").close()
        except OSError as error:
            self.notes.append(f"left out: {error}")
            return
        cell.runs.append(run)
        lines = read_text(run.results).splitlines()
        if damaged := len(lines) - len({seed for row in parse_rows(lines) if isinstance(seed := row.get("seed"), int)}):
            self.notes.append(f"{run.results}: {damaged} lines are no result of a seed, or repeat one, and left out")
        rows, known = run.rows(), cell.rows.keys() | cell.failed.keys()
        if twice := sorted(rows.keys() & known):
            self.notes.append(f"{run.path}: another run directory has seeds {format_seeds(twice)} as well, and counts")
        for seed, row in rows.items():
            if seed in known:
                continue
            if row.get("status") == "failed":
                cell.failed[seed] = str(row.get("reason") or "no reason was recorded")
            else:
                cell.rows[seed] = row


def load(paths: Iterable[str]) -> Comparison:
    """All that lies below these paths."""
    reader = _Reader()
    folders = [Path(path).resolve() for path in paths]
    runs = find_runs(map(str, folders))
    sweeps = [found.parent.parent for folder in folders for found in folder.glob("*/sweep/manifest.jsonl")]
    for folder in dict.fromkeys([*folders, *sweeps, *(run.path.parent.parent for run in runs)]):
        reader.plan(folder, folders)
    for run in runs:
        reader.run(run)
    for key, cell in reader.cells.items():
        cell.missing = sorted(reader.asked[key] - set(cell.rows) - set(cell.failed))
    tell_apart(list(reader.cells.values()))
    cells = sorted(reader.cells.values(), key=lambda cell: (cell.dataset, cell.arch, cell.setting))
    return Comparison(", ".join(dict.fromkeys(path.name for path in folders)), cells, reader.notes)
