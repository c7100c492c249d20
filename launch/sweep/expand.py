"""Expand a sweep file to cells and jobs, and say how they differ from the last expansion."""

import itertools
import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import yaml

from launch.sweep.plan import Job, Plan, Sweep, load_plan, plan_folder, read_sweep
from launch.sweep.status import plural
from stn.config.fields import first_lines
from stn.config.resolve import resolve, signature, validate
from stn.config.schema import Config
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import Sections, build_config, dump_yaml, find_recipe, normalise, overlay, read_yaml
from stn.runs.files import read_text, write_atomic
from stn.tracking.console import say

SET_BY_SWEEP = {"train": ("seeds", "processes", "time_limit"), "log": ("name", "runs")}
"""Keys that the sweep sets; refused in base and grid."""
MOST_CELLS, MOST_JOBS = 10_000, 100_000


class Cell(NamedTuple):
    sig: str
    config: Config
    setting: str
    """The varied keys beside architecture and data set, such as 'optim.lr=0.01'."""


class Change(NamedTuple):
    """An expanded sweep, and its difference from the one on disk."""

    plan: Plan
    cells: list[Cell]
    added: list[Job]
    removed: list[Job]


def _sections(keys: dict[str, Any], where: str) -> Sections:
    """Return configuration keys, short, dotted or nested, by section."""
    layers = []
    for key, value in keys.items():
        section, _, name = str(key).partition(".")
        layers.append(normalise({section: {name.replace("-", "_"): value}} if name else {key: value}, where))
    return overlay(*layers)


def _without_recipe(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "recipe"}


def _text(value: Any) -> str:
    text = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text if text.isprintable() else repr(text)


def _build_config(sweep: Sweep, point: dict[str, Any], runs: str, where: str) -> Config:
    """Return the configuration of one combination, not resolved yet."""
    recipe = point.get("recipe", sweep.recipe)
    layers = [_sections(keys, where) for keys in (sweep.base, _without_recipe(point))]
    for section, names in SET_BY_SWEEP.items():
        for name in names:
            if any(name in layer.get(section, {}) for layer in layers):
                raise ValueError(f"{where}: '{name}' is not for base or grid; the sweep sets it")
    set_by_sweep: Sections = {"train": {"seeds": sweep.seeds}, "log": {"name": sweep.name, "runs": runs}}
    recipe_layer = read_yaml(find_recipe(str(recipe))) if recipe else {}
    config = build_config(overlay(recipe_layer, *layers, set_by_sweep), where)
    validate(config)
    return config


def _is_excluded(rule: dict[str, Any], point: dict[str, Any], config: Config, where: str) -> bool:
    """Whether a combination matches all keys of an entry of ``exclude``."""
    if rule.get("recipe", point.get("recipe")) != point.get("recipe"):
        return False
    wanted = _sections(_without_recipe(rule), where)
    parsed = build_config(wanted, where)  # YAML reads 1e-3 as a string: parse it as the grid's values
    # A plugin's option is a field of its own architectures alone.
    return all(getattr(getattr(config, s), k, ...) == getattr(getattr(parsed, s), k) for s in wanted for k in wanted[s])


def _grid_points(sweep: Sweep, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return all combinations of the grid's values, each with a label for messages."""
    if sweep.recipe and "recipe" in sweep.grid:
        raise ValueError(f"{where}: give recipe once, by itself or in the grid")
    for key, values in sweep.grid.items():
        if not values:
            raise ValueError(f"{where}: grid.{key} has no values")
    cells = math.prod(map(len, sweep.grid.values()))
    jobs = cells * -(-len(parse_seeds(sweep.seeds)) // sweep.seeds_per_job)
    if cells > MOST_CELLS or jobs > MOST_JOBS:
        limit = f"a sweep has at most {MOST_CELLS:,} cells and {MOST_JOBS:,} jobs"
        raise ValueError(f"{where}: {cells:,} cells, {jobs:,} jobs; {limit}: split it, or raise seeds_per_job")
    points = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    labels = [
        ", ".join(f"{_text(key):.80} {_text(value):.80}" for key, value in point.items()) or "its base"
        for point in points
    ]
    return [(f"{where}: {label}", point) for label, point in zip(labels, points, strict=True)]


def _setting(point: dict[str, Any], varied: list[str], repeated: set[str]) -> str:
    """Return the keys that tell a combination from others of its architecture, which may be in the grid repeatedly."""
    arch, keys = point.get("arch"), {}
    if isinstance(arch, dict) and str(arch.get("name")) in repeated:
        keys = {f"arch.{key}": value for key, value in arch.items() if key != "name"}
    keys |= {key: point[key] for key in varied}
    return " ".join(f"{key}={_text(value)}" for key, value in keys.items())


def build_cells(sweep: Sweep, runs: str) -> list[Cell]:
    """Return every combination that is not excluded, resolved."""
    name, errors, unused_rules = f"sweep {sweep.name}", [], sweep.exclude
    cells: dict[str, Cell] = {}
    varied = [key for key, values in sweep.grid.items() if len(values) > 1 and key not in ("arch", "dataset")]
    archs = [str(arch.get("name") if isinstance(arch, dict) else arch) for arch in sweep.grid.get("arch", [])]
    repeated = {name for name, n in Counter(archs).items() if n > 1}
    for where, point in _grid_points(sweep, name):
        try:
            config = _build_config(sweep, point, runs, where)
        except ValueError as error:
            raise ValueError(str(error) if name in str(error) else f"{where}: {error}") from None
        rules = [rule for rule in sweep.exclude if _is_excluded(rule, point, config, f"{name}: exclude")]
        unused_rules = [rule for rule in unused_rules if rule not in rules]
        if rules:
            continue
        try:
            config = resolve(config)
        except ValueError as error:
            errors.append(f"{where}: {error}")
            continue
        cell = Cell(signature(config), config, _setting(point, varied, repeated))
        if cell.sig in cells:
            raise ValueError(f"{where} is the same experiment as an earlier combination; remove one")
        cells[cell.sig] = cell
    if errors:
        raise ValueError(f"{first_lines(chr(10).join(errors))}\nadd combinations that cannot be trained to exclude")
    if unused_rules:
        raise ValueError(f"{name}: exclude {unused_rules[0]} matches no combination")
    if not cells:
        raise ValueError(f"{name}: exclude leaves no combination")
    return list(cells.values())


def build_jobs(cell: Cell, sweep: Sweep, old_jobs: list[Job]) -> list[Job]:
    """Return a cell's blocks of seeds: old blocks stay if all of their seeds are wanted, new ones hold the rest."""
    rest, blocks = set(parse_seeds(sweep.seeds)), []
    for job in old_jobs:
        if job.sig == cell.sig and (seeds := set(parse_seeds(job.seeds))) <= rest:
            blocks.append(job.seeds)
            rest -= seeds
    new = sorted(rest)
    blocks += [format_seeds(new[i : i + sweep.seeds_per_job]) for i in range(0, len(new), sweep.seeds_per_job)]
    blocks.sort(key=lambda block: parse_seeds(block)[0])
    arch, dataset = cell.config.arch.name, cell.config.data.label
    return [Job(cell.sig, block, arch, dataset, cell.setting) for block in blocks]


def expand(file: str, runs: str) -> Change:
    """Expand a sweep file and compare with the last expansion. Writes nothing."""
    sweep = read_sweep(file)
    folder, cells = plan_folder(sweep, runs), build_cells(sweep, runs)
    old_jobs = load_plan(folder).jobs if (folder / "manifest.jsonl").exists() else []
    jobs = [job for cell in cells for job in build_jobs(cell, sweep, old_jobs)]
    old_ids, new_ids = {job.id for job in old_jobs}, {job.id for job in jobs}
    added = [job for job in jobs if job.id not in old_ids]
    removed = [job for job in old_jobs if job.id not in new_ids]
    return Change(Plan(folder, sweep, jobs), cells, added, removed)


def write(change: Change) -> None:
    """Write the plan, the manifest last: whatever it names is on disk before it."""
    plan = change.plan
    texts = {plan.folder / "cells" / f"{cell.sig}.yaml": dump_yaml(cell.config) for cell in change.cells}
    changed = {file: text for file, text in texts.items() if read_text(file) != text}
    with ThreadPoolExecutor(16) as pool:  # flushed side by side: 1,000 files in 0.4 s instead of 10
        list(pool.map(write_atomic, changed.keys(), changed.values()))
    write_atomic(plan.folder / "sweep.yaml", yaml.safe_dump(plan.sweep.model_dump(mode="json"), sort_keys=False))
    rows = "".join(json.dumps(job._asdict()) + "\n" for job in plan.jobs)
    write_atomic(plan.folder / "manifest.jsonl", rows)


def print_change(change: Change) -> None:
    plan = change.plan
    total = sum(len(parse_seeds(job.seeds)) for job in plan.jobs)
    sizes = (plural(len(change.cells), "cell"), plural(total, "seed"), plural(len(plan.jobs), "job"))
    say(f"{plan.sweep.name}: {', '.join(sizes)}")
    if len(change.added) == len(plan.jobs) and not change.removed:
        return  # expanded for the first time
    for title, jobs in (("new since last time", change.added), ("no longer part of it", change.removed)):
        if jobs:
            say(f"{title}: {plural(len(jobs), 'job')}")
        for label in dict.fromkeys(job.label for job in jobs):
            seeds = [seed for job in jobs if job.label == label for seed in parse_seeds(job.seeds)]
            say(f"  {label}: seeds {format_seeds(seeds)}")
