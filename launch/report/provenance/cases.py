"""What to know before a comparison is believed: each case is a type, and its advice depends on what was done."""

import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass

from launch.report.analysis.cells import Cell
from stn.config.seed_list import format_seeds

Groups = dict[str, list[str]]
"""Labels of cells by the value that they have."""


def train_command(cell: Cell, seeds: str, more: str = "") -> str:
    """Return the command that trains seeds of a cell."""
    config = cell.runs[0].config if cell.runs else "CONFIG.yaml"
    return f"python train.py --config {shlex.quote(str(config))} --seeds {seeds}{more}"


def _said(groups: Groups) -> str:
    """Return values with their cells; the values alone where every cell has several of them."""
    names = [tuple(labels) for labels in groups.values()]
    if len(set(names)) == 1:
        return ", ".join(groups)
    return ", ".join(f"{value} ({', '.join(labels)})" for value, labels in groups.items())


@dataclass(frozen=True)
class Case(ABC):
    """Something that limits what a comparison says."""

    @property
    @abstractmethod
    def what(self) -> str: ...

    @property
    @abstractmethod
    def advice(self) -> str: ...

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}"


@dataclass(frozen=True)
class OtherCommits(Case):
    """Cells that were trained at different commits."""

    commits: Groups
    same_code: bool
    """Every cell has runs of every commit, whose fingerprints agree."""

    @property
    def what(self) -> str:
        return f"different commits are compared: {_said(self.commits)}"

    @property
    def advice(self) -> str:
        if self.same_code:
            return "each cell has seeds of all of them, whose fingerprints agree: they compute the same"
        known = [commit for commit in self.commits if commit != "unknown"]
        if len(known) < 2:
            return (
                "a run does not know its commit (an installed package); compare versions, or train all from one clone"
            )
        most = max(known, key=lambda commit: len(self.commits[commit]))
        others = sorted({label for commit in self.commits if commit != most for label in self.commits[commit]})
        first = next(commit for commit in known if commit != most)
        return (
            f"see what changed (git diff {first} {most} -- stn train.py), "
            f"and if it bears on the result train {', '.join(others)} again at {most} with --retrain"
        )


@dataclass(frozen=True)
class UncommittedChanges(Case):
    """Runs that no commit describes."""

    labels: tuple[str, ...]

    @property
    def what(self) -> str:
        return "some runs were started with uncommitted changes"

    @property
    def advice(self) -> str:
        return f"no commit says what trained {', '.join(self.labels)}: commit, and train again before it is cited"


@dataclass(frozen=True)
class OtherFingerprints(Case):
    """One configuration, computed by code that computes otherwise."""

    first: Cell
    second: Cell
    why: str

    @property
    def what(self) -> str:
        return f"{self.first.label} and {self.second.label} have one configuration and other fingerprints ({self.why})"

    @property
    def advice(self) -> str:
        seeds = format_seeds(sorted(self.first.rows))
        return f"their difference is the code's; if it is not meant: {train_command(self.first, seeds, ' --retrain')}"


@dataclass(frozen=True)
class RecutBlocks(Case):
    """Cells whose seeds trained in blocks of different sizes."""

    sizes: Groups

    @property
    def what(self) -> str:
        return f"different numbers of seeds at once are compared: {_said(self.sizes)}"

    @property
    def advice(self) -> str:
        return "accuracies compare, since a seed's does not depend on it; for times and images/s give all one --fuse"


@dataclass(frozen=True)
class Differs(Case):
    """Something other than the architecture that differs between cells."""

    name: str
    values: Groups
    then: str

    @property
    def what(self) -> str:
        return f"different {self.name} are compared: {_said(self.values)}"

    @property
    def advice(self) -> str:
        return self.then
