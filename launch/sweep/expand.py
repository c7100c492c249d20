"""From a sweep file to cells and jobs, and how they differ from what was expanded before.

Must not know how jobs are run, nor torch.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from launch.sweep.plan import Job, Plan, Sweep, load_plan, plan_folder, read_sweep
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.signature import signature
from stn.config.validation import validate
from stn.config.yaml_files import Sections, build_config, dump_yaml, find_recipe, normalise, overlay, read_yaml
from stn.runs.files import read_text, write_atomic

DECIDED = {"train": ("seeds", "processes", "time_limit"), "log": ("name", "runs")}
"""What a sweep says itself."""


class Cell(NamedTuple):
    sig: str
    config: Config
    setting: str
    """What tells it from other cells beside architecture and data set."""


def _sections(given: dict[str, Any], where: str) -> Sections:
    """Keys of a configuration, short, dotted or nested."""
    layers = []
    for key, value in given.items():
        section, _, name = str(key).partition(".")
        layers.append(normalise({section: {name.replace("-", "_"): value}} if name else {key: value}, where))
    return overlay(*layers)


def _text(value: Any) -> str:
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _build(sweep: Sweep, point: dict[str, Any], runs: str, where: str) -> Config:
    recipe = point.get("recipe", sweep.recipe)
    below = read_yaml(find_recipe(str(recipe))) if recipe else {}
    given = [_sections(one, where) for one in (sweep.base, _without_recipe(point))]
    own: Sections = {"train": {"seeds": sweep.seeds}, "log": {"name": sweep.name, "runs": runs}}
    for section, keys in DECIDED.items():
        for key in keys:
            if any(key in layer.get(section, {}) for layer in given):
                raise ValueError(f"{where}: '{key}' is not for base or grid; a sweep says it itself")
    config = build_config(overlay(below, *given, own), where)
    validate(config)
    return config


def _without_recipe(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "recipe"}


def _is_excluded(rule: dict[str, Any], point: dict[str, Any], config: Config, where: str) -> bool:
    if rule.get("recipe", point.get("recipe")) != point.get("recipe"):
        return False
    wanted = _sections(_without_recipe(rule), f"{where}: exclude")
    same = build_config(wanted, f"{where}: exclude")  # so that 1e-3 is a number here as well
    return all(getattr(getattr(config, s), k) == getattr(getattr(same, s), k) for s in wanted for k in wanted[s])


def cells(sweep: Sweep, runs: str) -> list[Cell]:
    """Every combination that is not excluded, resolved."""
    where, faults = f"sweep {sweep.name}", []
    if sweep.recipe and "recipe" in sweep.grid:
        raise ValueError(f"{where}: give recipe once, by itself or in the grid")
    for key in sweep.grid:
        if not sweep.grid[key]:
            raise ValueError(f"{where}: grid.{key} has no values")
    found: dict[str, Cell] = {}
    used: set[int] = set()
    varied = [key for key, values in sweep.grid.items() if len(values) > 1 and key not in ("arch", "dataset")]
    for values in itertools.product(*sweep.grid.values()):
        point = dict(zip(sweep.grid, values, strict=True))
        label = ", ".join(f"{key} {_text(value)}" for key, value in point.items()) or "its base"
        try:
            config = _build(sweep, point, runs, f"{where}: {label}")
        except ValueError as error:
            raise ValueError(str(error) if where in str(error) else f"{where}: {label}: {error}") from None
        rules = {i for i, rule in enumerate(sweep.exclude) if _is_excluded(rule, point, config, where)}
        used |= rules
        if rules:
            continue
        try:
            config = resolve(config)
        except ValueError as error:
            faults.append(f"{where}: {label}: {error}")
            continue
        cell = Cell(signature(config), config, " ".join(f"{key}={_text(point[key])}" for key in varied))
        if cell.sig in found:
            raise ValueError(f"{where}: {label} is the same experiment as an earlier combination")
        found[cell.sig] = cell
    if faults:
        raise ValueError("\n".join([*faults, "exclude leaves combinations out"]))
    for i, rule in enumerate(sweep.exclude):
        if i not in used:
            raise ValueError(f"{where}: exclude {rule} is true of no combination")
    if not found:
        raise ValueError(f"{where}: everything is excluded")
    return list(found.values())


def jobs_of(cell: Cell, seeds: list[int], size: int, before: list[Job]) -> list[Job]:
    """Blocks of a cell's seeds: those of before as far as all of their seeds are wanted, then new ones."""
    wanted, blocks = set(seeds), []
    for job in before:
        block = set(parse_seeds(job.seeds))
        if block <= wanted:
            blocks.append(job.seeds)
            wanted -= block
    left = sorted(wanted)
    blocks += [format_seeds(left[i : i + size]) for i in range(0, len(left), size)]
    config = cell.config
    blocks.sort(key=lambda block: parse_seeds(block)[0])
    return [Job(cell.sig, block, config.arch.name, config.data.name, cell.setting) for block in blocks]


class Change(NamedTuple):
    plan: Plan
    cells: list[Cell]
    added: list[Job]
    removed: list[Job]


def expand(path: Path, runs: str) -> Change:
    """What a file says now, and how that differs from what was expanded before. Writes nothing."""
    sweep = read_sweep(path)
    folder = plan_folder(sweep, runs)
    before = load_plan(folder).jobs if (folder / "manifest.jsonl").exists() else []
    found, seeds = cells(sweep, runs), sorted(parse_seeds(sweep.seeds))
    known: dict[str, list[Job]] = {}
    for job in before:
        known.setdefault(job.sig, []).append(job)
    jobs = [job for cell in found for job in jobs_of(cell, seeds, sweep.seeds_per_job, known.get(cell.sig, []))]
    old, new = {job.id for job in before}, {job.id for job in jobs}
    added, removed = [j for j in jobs if j.id not in old], [j for j in before if j.id not in new]
    return Change(Plan(folder, sweep, jobs), found, added, removed)


def write(change: Change) -> None:
    """The manifest last: what it names is there, and has reached the disk."""
    plan = change.plan
    for cell in change.cells:
        file, text = plan.folder / "cells" / f"{cell.sig}.yaml", dump_yaml(cell.config)
        if read_text(file) != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".tmp")
            temporary.write_text(text)
            temporary.replace(file)
    os.sync()  # once, not for each of hundreds
    write_atomic(plan.folder / "sweep.yaml", yaml.safe_dump(plan.sweep.model_dump(mode="json"), sort_keys=False))
    rows = "".join(json.dumps(job._asdict()) + "\n" for job in plan.jobs)
    write_atomic(plan.folder / "manifest.jsonl", rows)
