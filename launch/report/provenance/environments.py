"""What env.json says of the runs behind a report's cells."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from launch.report.analysis.cells import Cell
from stn.runs.directory import RunDir
from stn.runs.files import read_json

UNKNOWN = "unknown"


class Environment(NamedTuple):
    """One run directory, or what one was before it resumed elsewhere."""

    cell: Cell
    run: RunDir
    facts: dict[str, Any]

    @property
    def commit(self) -> str:
        commit = self.facts.get("commit")
        return commit[:12] if isinstance(commit, str) and commit else UNKNOWN

    @property
    def dirty(self) -> bool:
        return bool(self.facts.get("dirty"))

    def version(self, package: str) -> str:
        packages = self.facts.get("packages")
        known = packages.get(package) if isinstance(packages, dict) else None
        return str(known) if known else UNKNOWN

    @property
    def device(self) -> str:
        return str(self.facts.get("device_name") or self.facts.get("device") or UNKNOWN)

    @property
    def content(self) -> str:
        """The hash of a data set that was read from a file."""
        data = self.facts.get("data")
        return str(data.get("content") if isinstance(data, dict) else None)


def environments(cells: Iterable[Cell]) -> list[Environment]:
    found: list[Environment] = []
    for cell in cells:
        for run in cell.runs:
            facts = read_json(run.env)
            earlier = facts.get("earlier")
            stages = [stage for stage in earlier if isinstance(stage, dict)] if isinstance(earlier, list) else []
            found += [Environment(cell, run, facts | stage) for stage in (*stages, {})]
    return found


def distinct(values: Iterable[object]) -> list[str]:
    return sorted(set(map(str, values)))


def joined(values: Sequence[object]) -> str:
    """Return the distinct values, with commas; 'unknown' if there are none."""
    return ",".join(distinct(values)) or UNKNOWN
