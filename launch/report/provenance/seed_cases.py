"""Cases of too few seeds, or of seeds that are there twice."""

from dataclasses import dataclass

from launch.report.analysis.cells import Cell
from launch.report.analysis.stats import FEWEST_PAIRS
from launch.report.provenance.cases import Case, train_command
from launch.sweep.status import plural
from stn.config.seed_list import format_seeds


@dataclass(frozen=True)
class NoInterval(Case):
    """A cell with a single seed."""

    cell: Cell
    seeds: tuple[int, ...]

    @property
    def what(self) -> str:
        return f"{self.cell.label} has one seed, so that it has no SD and no interval"

    @property
    def advice(self) -> str:
        if running := sorted(self.cell.missing):
            return f"wait for seeds {format_seeds(running)}, which are missing"
        start = max(self.seeds) + 1
        return f"train at least two more: {train_command(self.cell, format_seeds([start, start + 1]))}"


@dataclass(frozen=True)
class FewSeeds(Case):
    """Two cells with too few shared seeds for a test."""

    first: Cell
    second: Cell
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    shared: tuple[int, ...]

    @property
    def what(self) -> str:
        shared = plural(len(self.shared), "seed") if self.shared else "no seed"
        return f"{self.first.label} and {self.second.label} share {shared}, and a test takes {FEWEST_PAIRS}"

    @property
    def advice(self) -> str:
        lacking = FEWEST_PAIRS - len(self.shared)
        for other, lone, cell in (
            (self.first, self.only_first, self.second),
            (self.second, self.only_second, self.first),
        ):
            if len(lone) >= lacking:
                return f"train those that {other.label} has: {train_command(cell, format_seeds(list(lone)))}"
        start = max((*self.shared, *self.only_first, *self.only_second), default=-1) + 1
        more = format_seeds(list(range(start, start + lacking)))
        return f"train seeds {more} of both, or give the sweep a longer `seeds`"


@dataclass(frozen=True)
class RepeatedSeeds(Case):
    """Seeds with rows in two run directories of a cell."""

    cell: Cell
    seeds: tuple[int, ...]
    counted: str
    other: str
    agree: bool
    more: tuple[int, ...]
    """Seeds of the other that the one that counts lacks."""

    @property
    def what(self) -> str:
        return f"{self.cell.label}: seeds {format_seeds(list(self.seeds))} are in {self.counted} and in {self.other}"

    @property
    def advice(self) -> str:
        if self.agree and self.more:
            more = format_seeds(list(self.more))
            return f"they agree, and {self.counted} counts; keep {self.other}: {self.counted} lacks its seeds {more}"
        if self.agree:
            return f"they agree, and {self.counted} counts; {self.other} can be deleted"
        return f"they differ, and {self.counted} counts, as the first by name: move away the one that should not"
