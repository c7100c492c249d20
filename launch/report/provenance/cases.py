"""What to know before a comparison is believed: each case says what is so, and advice that depends on what was done."""

import shlex
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.stats import FEWEST_PAIRS
from launch.sweep.status import plural
from stn.config.seed_list import format_seeds

Groups = dict[str, list[str]]
"""Labels of cells by the value that they have."""


class Case(NamedTuple):
    """Something that limits what a comparison says."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}"


def _train(cell: Cell, seeds: list[int], more: str = "") -> str:
    """Return the command that trains seeds of a cell."""
    config = cell.runs[0].config if cell.runs else "CONFIG.yaml"
    return f"python train.py --config {shlex.quote(str(config))} --seeds {format_seeds(seeds)}{more}"


def _said(groups: Groups) -> str:
    """Return values with their cells; the values alone where every cell has several of them."""
    names = [tuple(labels) for labels in groups.values()]
    if len(set(names)) == 1:
        return ", ".join(groups)
    return ", ".join(f"{value} ({', '.join(labels)})" for value, labels in groups.items())


def differs(name: str, values: Groups, advice: str) -> Case:
    """Something other than the architecture differs between cells."""
    return Case(f"different {name} are compared: {_said(values)}", advice)


def other_commits(commits: Groups, same_code: bool) -> Case:
    """Cells were trained at different commits; ``same_code``: each has runs of all, whose fingerprints agree."""
    known = [commit for commit in commits if commit != "unknown"]
    if same_code:
        advice = "each cell has seeds of all of them, whose fingerprints agree: they compute the same"
    elif len(known) < 2:
        advice = "a run does not know its commit (an installed package); compare versions, or train all from one clone"
    else:
        most = max(known, key=lambda commit: len(commits[commit]))
        others = sorted({label for commit in commits if commit != most for label in commits[commit]})
        first = next(commit for commit in known if commit != most)
        advice = (
            f"see what changed (git diff {first} {most} -- stn train.py), "
            f"and if it bears on the result train {', '.join(others)} again at {most} with --retrain"
        )
    return differs("commits", commits, advice)


def other_fingerprints(first: Cell, second: Cell, why: str) -> Case:
    """One configuration was computed by code that computes otherwise."""
    command = _train(first, sorted(first.rows), " --retrain")
    return Case(
        f"{first.label} and {second.label} have one configuration and other fingerprints ({why})",
        f"their difference is the code's; if it is not meant: {command}",
    )


def no_interval(cell: Cell, seed: int) -> Case:
    """A cell has a single seed."""
    if running := sorted(cell.missing):
        advice = f"wait for seeds {format_seeds(running)}, which are missing"
    else:
        advice = f"train at least two more: {_train(cell, [seed + 1, seed + 2])}"
    return Case(f"{cell.label} has one seed, so that it has no SD and no interval", advice)


def few_seeds(first: Cell, second: Cell, of_first: list[int], of_second: list[int]) -> Case:
    """Two cells, with these seeds, share too few of them for a test."""
    shared = [seed for seed in of_first if seed in of_second]
    lacking = FEWEST_PAIRS - len(shared)
    start = max((*of_first, *of_second), default=-1) + 1
    more = format_seeds(list(range(start, start + lacking)))
    advice = f"train seeds {more} of both, or give the sweep a longer `seeds`"
    for other, seeds, cell in ((second, of_second, first), (first, of_first, second)):
        if len(lone := [seed for seed in seeds if seed not in shared]) >= lacking:
            advice = f"train those that {other.label} has: {_train(cell, lone)}"
    said = plural(len(shared), "seed") if shared else "no seed"
    return Case(f"{first.label} and {second.label} share {said}, and a test takes {FEWEST_PAIRS}", advice)


def repeated_seeds(cell: Cell, seeds: list[int], counted: str, other: str, agree: bool, more: list[int]) -> Case:
    """Seeds have rows in two run directories of a cell; ``more`` are those that only the other one has."""
    if not agree:
        advice = f"they differ, and {counted} counts, as the first by name: move away the one that should not"
    elif more:
        advice = f"they agree, and {counted} counts; keep {other}: {counted} lacks its seeds {format_seeds(more)}"
    else:
        advice = f"they agree, and {counted} counts; {other} can be deleted"
    return Case(f"{cell.label}: seeds {format_seeds(seeds)} are in {counted} and in {other}", advice)
