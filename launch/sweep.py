"""A sweep file and what it expands to: cells (settings), and jobs (blocks of a cell's seeds) with ids that stay.

    runs/<name>/sweep/
        sweep.yaml       the sweep as it was expanded last
        manifest.jsonl   a row per job
        cells/<sig>.yaml the resolved configuration of each cell
        jobs/            what is known of a job beside its run directory: starts, its last error
        logs/            what jobs printed
        slurm/           each submission: the array scripts, their lists of jobs, Slurm's ids

Must not know how jobs are run, nor torch.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import AfterValidator, Field, ValidationError

from stn.config import (
    RECIPES,
    Sections,
    build_config,
    check,
    dump_yaml,
    find_recipe,
    format_seeds,
    normalise,
    overlay,
    parse_seeds,
    read_mapping,
    read_yaml,
    signature,
)
from stn.fields import Positive, Section, explain
from stn.files import read_rows, write_atomic
from stn.registry import nearest
from stn.resolve import resolve
from stn.rundir import RunDir
from stn.schema import Config

FILES = RECIPES / "sweeps"
_UNITS = {"minute": 1, "hour": 60, "day": 24 * 60}


def _minutes(text: str) -> str:
    match = re.fullmatch(r"(\d+) (minute|hour|day)s?", text.strip())
    if not match or int(match[1]) == 0:
        raise ValueError("a time is a number of minutes, hours or days, such as '90 minutes'")
    return f"{match[1]} {match[2]}s"


class Sweep(Section):
    """What a file in configs/sweeps/ may say."""

    name: str | None = None
    """Folder under runs; None: the file's name."""
    recipe: str | None = None
    """Recipe that every cell starts from."""
    base: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Keys of a configuration that hold for all cells."""
    grid: Annotated[dict[str, list[Any]], Field(default_factory=dict)]
    """Keys of a configuration, each with its values, or ``recipe`` with names; cells are all combinations."""
    exclude: Annotated[list[dict[str, Any]], Field(default_factory=list)]
    """Combinations to leave out: all cells for which everything that an entry says is true."""
    seeds: str
    """Seeds of every cell, such as 0-99."""
    seeds_per_job: Positive = 8
    """Seeds that one job trains, as many of them at once as train.fuse allows."""
    time: Annotated[str, AfterValidator(_minutes)] = "4 hours"
    """Slurm: time limit of a job; it saves before, and goes on in the queue."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a job: a process on each; 0: one process on CPUs."""
    cpus: Positive = 1
    """CPU cores of a job."""
    memory: str | None = None
    """Slurm: memory of a job, such as 8G; None: what the site gives."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Starts in a row without progress after which a job is given up."""

    def minutes(self) -> int:
        number, unit = self.time.split()
        return int(number) * _UNITS[unit.removesuffix("s")]


class Cell(NamedTuple):
    sig: str
    config: Config
    setting: str
    """What tells it from other cells beside architecture and data set."""


class Job(NamedTuple):
    sig: str
    seeds: str
    arch: str
    dataset: str
    setting: str

    @property
    def id(self) -> str:
        return f"{self.sig}/{self.block}"

    @property
    def block(self) -> str:
        """The name of its run directory."""
        return RunDir.of("", "", "", parse_seeds(self.seeds)).path.name

    @property
    def label(self) -> str:
        return " ".join(part for part in (self.arch, self.dataset, self.setting) if part)


class Plan(NamedTuple):
    """A sweep on disk."""

    folder: Path
    sweep: Sweep
    jobs: list[Job]

    @property
    def experiment(self) -> Path:
        return self.folder.parent

    def cell_file(self, job: Job) -> Path:
        return self.folder / "cells" / f"{job.sig}.yaml"

    def log(self, job: Job) -> Path:
        return self.folder / "logs" / f"{job.sig}_{job.block}.log"


# ---- a file, or what is there of it


def find_sweep(text: str) -> Path:
    """A file, or one of configs/sweeps/ with or without its ending."""
    for path in (Path(text), FILES / text, FILES / f"{text}.yaml"):
        if path.is_file():
            return path
    raise ValueError(f"no sweep '{text}'; {nearest(Path(text).stem, {p.stem for p in FILES.glob('*.yaml')})}")


def read_sweep(path: Path) -> Sweep:
    given = read_mapping(path)
    try:
        sweep = Sweep.model_validate({"name": path.stem} | given)
        parse_seeds(sweep.seeds)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, Sweep)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not re.fullmatch(r"[\w.-]+", str(sweep.name)) or str(sweep.name).startswith("."):
        raise ValueError(f"{path}: name '{sweep.name}' cannot be a folder's name")
    return sweep


def find_plan(text: str, runs: str) -> Plan:
    """The plan of a sweep that has been expanded: by its file, its name, or its folder under runs."""
    path = Path(text)
    for folder in (path, path / "sweep", Path(runs) / text / "sweep"):
        if (folder / "manifest.jsonl").is_file():
            return load_plan(folder)
    folder = Path(runs) / str(read_sweep(find_sweep(text)).name) / "sweep"
    if not (folder / "manifest.jsonl").is_file():
        raise ValueError(f"{text} has not been started: there is no {folder}")
    return load_plan(folder)


def load_plan(folder: Path) -> Plan:
    rows = read_rows(folder / "manifest.jsonl")
    return Plan(folder, Sweep.model_validate(read_mapping(folder / "sweep.yaml")), [Job(**row) for row in rows])


# ---- expansion


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
    for section, keys in own.items():
        for key in keys:
            if any(key in layer.get(section, {}) for layer in given):
                raise ValueError(f"{where}: '{key}' is not for base or grid; a sweep says it itself")
    config = build_config(overlay(below, *given, own), where)
    check(config)
    return config


def _without_recipe(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "recipe"}


def _is_excluded(rule: dict[str, Any], point: dict[str, Any], config: Config, where: str) -> bool:
    if rule.get("recipe", point.get("recipe")) != point.get("recipe"):
        return False
    wanted = _sections(_without_recipe(rule), f"{where}: exclude")
    return all(getattr(getattr(config, s), k) == v for s, keys in wanted.items() for k, v in keys.items())


def cells(sweep: Sweep, runs: str) -> list[Cell]:
    """Every combination that is not excluded, resolved."""
    where, faults = f"sweep {sweep.name}", []
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
    for i, rule in enumerate(sweep.exclude):
        if i not in used:
            faults.append(f"{where}: exclude {rule} is true of no combination")
    if faults:
        raise ValueError("\n".join([*faults, "exclude leaves impossible combinations out"][: len(faults) + 1]))
    if not found:
        raise ValueError(f"{where}: everything is excluded")
    return list(found.values())


def jobs_of(cell: Cell, seeds: list[int], size: int, before: list[Job]) -> list[Job]:
    """Blocks of a cell's seeds: those of before as far as all of their seeds are wanted, then new ones."""
    wanted, blocks = set(seeds), []
    for job in before:
        block = set(parse_seeds(job.seeds))
        if job.sig == cell.sig and block <= wanted:
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
    folder = Path(runs) / str(sweep.name) / "sweep"
    before = load_plan(folder).jobs if (folder / "manifest.jsonl").exists() else []
    found, seeds = cells(sweep, runs), sorted(parse_seeds(sweep.seeds))
    jobs = [job for cell in found for job in jobs_of(cell, seeds, sweep.seeds_per_job, before)]
    old, new = {job.id for job in before}, {job.id for job in jobs}
    added, removed = [j for j in jobs if j.id not in old], [j for j in before if j.id not in new]
    return Change(Plan(folder, sweep, jobs), found, added, removed)


def write(change: Change) -> None:
    """The manifest last: what it names is there."""
    plan = change.plan
    for cell in change.cells:
        write_atomic(plan.folder / "cells" / f"{cell.sig}.yaml", dump_yaml(cell.config))
    write_atomic(plan.folder / "sweep.yaml", yaml.safe_dump(plan.sweep.model_dump(mode="json"), sort_keys=False))
    rows = "".join(json.dumps(job._asdict()) + "\n" for job in plan.jobs)
    write_atomic(plan.folder / "manifest.jsonl", rows)
