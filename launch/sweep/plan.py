"""A sweep file, and its expansion on disk: cells (settings) and jobs (blocks of a cell's seeds) with stable ids."""

import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from launch.sweep.sbatch import SlurmOptions
from stn.config.fields import Few, FolderName, Positive, Section, Seeds
from stn.config.registry import closest
from stn.config.yaml_files import RECIPES, find_recipe, read_mapping
from stn.runs.directory import block_name

FILES = RECIPES / "sweeps"
_MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60}


def _minutes(time: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6}) (minute|hour|day)s?", time.strip())
    if not match or int(match[1]) == 0:
        raise ValueError("is not a number of minutes, hours or days, such as '90 minutes'")
    return int(match[1]) * _MINUTES[match[2]]


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name):  # it goes into the scripts of a scheduler
        raise ValueError("is not a valid folder name; use letters, digits, '.', '-' and '_'")
    return name


def _with_text_keys(options: Any) -> Any:
    """Return a mapping with keys that can be keyword arguments: YAML also has numbers."""
    return {str(key): value for key, value in options.items()} if isinstance(options, dict) else options


class Sweep(Section):
    """The keys of a file in configs/sweeps/."""

    name: Annotated[FolderName, AfterValidator(_check_name)]
    """Folder under runs; default: the file's name."""
    recipe: str | None = None
    """Recipe that every cell starts from."""
    base: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Configuration keys that hold for all cells."""
    grid: Annotated[dict[str, list[Any]], Field(default_factory=dict)]
    """Configuration keys with a list of values each, or ``recipe`` with names; cells are all combinations."""
    exclude: Annotated[list[dict[str, Any]], Field(default_factory=list, max_length=1000)]
    """Combinations to leave out: an entry excludes the cells that match all of its keys."""
    seeds: Seeds
    """Seeds of every cell, such as 0-99."""
    seeds_per_job: Positive = 8
    """Seeds that one job trains, as many at once as train.fuse allows."""
    time: Annotated[str, AfterValidator(lambda time: _minutes(time) and time)] = "4 hours"
    """Slurm: time limit of a job, which saves before it and requeues itself."""
    gpus: Annotated[int | None, Field(ge=0, le=1024)] = None
    """GPUs of a job, with a process on each; 0: one process on CPUs; None: one if this machine has any, 0 on Slurm."""
    cpus: Few = 1
    """CPU cores of a job."""
    memory: Annotated[str | None, Field(pattern=r"^[0-9]{1,12}[KMGT]?$")] = None
    """Slurm: memory of a job, such as 8G; None: the site's default."""
    slurm: Annotated[SlurmOptions, BeforeValidator(_with_text_keys)] = SlurmOptions()
    """Slurm: options of sbatch: partition, account, qos, constraint, gres, time, mem, mail-user, mail-type, extra."""
    restarts: Annotated[int, Field(ge=0, le=1_000_000)] = 3
    """Restarts in a row without progress after which a job is given up."""

    def minutes(self) -> int:
        """Return the time limit in minutes."""
        return _minutes(self.time)


class Job(NamedTuple):
    """A block of seeds of one cell."""

    sig: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    seeds: Seeds
    arch: Annotated[str, Field(pattern=r"^\w{1,100}$")]
    dataset: Annotated[str, Field(pattern=r"^\w{1,100}$")]
    setting: str

    @property
    def id(self) -> str:
        return f"{self.sig}/{self.block}"

    @property
    def block(self) -> str:
        """Name of the job's run directory."""
        return block_name(self.seeds)

    @property
    def label(self) -> str:
        return " ".join(part for part in (self.arch, self.dataset, self.setting) if part)

    @property
    def title(self) -> str:
        return f"{self.label} seeds {self.seeds}"


_JOB = TypeAdapter(Job)


class Plan(NamedTuple):
    """An expanded sweep on disk."""

    folder: Path
    sweep: Sweep
    jobs: list[Job]

    @property
    def experiment(self) -> Path:
        return self.folder.parent

    def cell_file(self, job: Job) -> Path:
        return self.folder / "cells" / f"{job.sig}.yaml"

    def note_file(self, job: Job) -> Path:
        return self.folder / "jobs" / f"{job.sig}_{job.block}.json"

    def log_file(self, job: Job) -> Path:
        return self.folder / "logs" / f"{job.sig}_{job.block}.log"


def read_sweep(file: str) -> Sweep:
    """Read and check a sweep file, given as a path or as a name in configs/sweeps/."""
    path = find_recipe(file, FILES, "sweep")
    given: Any = {key: value for key, value in read_mapping(path).items() if value is not None}
    try:
        sweep = Sweep(**({"name": path.stem} | given))
        sweep.slurm.check(sweep.gpus)
        return sweep
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def plan_folder(sweep: Sweep, runs: str) -> Path:
    return Path(runs) / sweep.name / "sweep"


def find_plan(text: str, runs: str) -> Plan:
    """Return the plan of an expanded sweep, given by its file, its name, or its folder under runs."""
    for folder in (Path(text), Path(text, "sweep"), Path(runs, text, "sweep")):
        if (folder / "manifest.jsonl").is_file():
            return load_plan(folder)
    try:
        folder = plan_folder(read_sweep(text), runs)
    except ValueError as error:
        started = [path.parents[1].name for path in Path(runs).glob("*/sweep/manifest.jsonl")]
        hint = f"did you mean '{near}'?" if (near := closest(text, started)) else f"and {error}"
        raise ValueError(f"nothing named {text!r:.80} in {runs}, {hint}") from None
    if not (folder / "manifest.jsonl").is_file():
        raise ValueError(f"sweep {text} has not been started (no {folder}); run: python -m launch sweep {text}")
    return load_plan(folder)


def load_plan(folder: Path) -> Plan:
    """Read a plan. A damaged manifest is an error: skipping its bad lines would lose jobs silently."""
    try:
        jobs = [_JOB.validate_json(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        return Plan(folder, Sweep(**read_mapping(folder / "sweep.yaml")), jobs)
    except ValueError:
        raise ValueError(
            f"the plan in {folder} is damaged; remove its manifest.jsonl and run the sweep again"
        ) from None
