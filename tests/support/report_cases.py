"""Finds the cases that limit a report's comparison."""

import json
from typing import Any

from launch.report.analysis.cells import Cell, load
from launch.report.analysis.metrics import METRICS
from launch.report.provenance.cases import Case
from launch.report.provenance.environments import environments
from launch.report.provenance.find import find_cases
from launch.sweep.plan import Plan

ENV = {"commit": "a" * 40, "dirty": False, "device": "cpu", "packages": {"torch": "2"}}


def cells_of(plan: Plan) -> list[Cell]:
    return load([str(plan.experiment)]).cells


def found(cells: list[Cell]) -> list[Case]:
    return find_cases(cells, METRICS[0], environments(cells))


def set_env(cell: Cell, which: slice = slice(None), **facts: Any) -> None:
    for run in cell.runs[which]:
        run.env.write_text(json.dumps(ENV | facts))


def only(cells: list[Cell]) -> Case:
    (case,) = found(cells)
    assert str(case) == f"{case.what}; {case.advice}"
    return case


def keep(cell: Cell, *seeds: int) -> None:
    cell.rows = {seed: row for seed, row in cell.rows.items() if seed in seeds}
