"""A configuration's YAML form, what cannot be combined, its durations and seed lists, and its signature.

Must not know torch, nor the command line.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from stn import registry
from stn.registry import nearest
from stn.schema import Config

registry.expect("stn.archs")
RECIPES = Path(__file__).parent.parent / "configs"


def _short_names() -> dict[str, tuple[str, str]]:
    table = {}
    for section, owner in Config.model_fields.items():
        for key, field in owner.annotation.model_fields.items():  # type: ignore[union-attr]
            for mark in field.metadata:
                for alias in getattr(mark, "aliases", None) or ():
                    table[alias.removeprefix("--").replace("-", "_")] = (section, key)
    return table


SHORT = _short_names()
"""Short name -> (section, key)."""
LENGTHS = {"epochs", "steps"}
"""Keys of train that say the same thing in two units."""


def find_recipe(name: str, folder: Path = RECIPES, kind: str = "recipe") -> Path:
    """A file, or one of configs/ with or without its ending."""
    for path in (Path(name), folder / name, folder / f"{name}.yaml"):
        if path.is_file():
            return path
    raise ValueError(f"no {kind} '{name}'; {nearest(Path(name).stem, {p.stem for p in folder.glob('*.yaml')})}")


Sections = dict[str, dict[str, Any]]
"""Section -> key -> value: a configuration, or what is to be laid over one."""


def normalise(given: dict, where: str | Path) -> Sections:
    """What was given, by section; short names such as ``lr`` are taken at the top level."""
    values: Sections = {}
    for key, value in given.items():
        short = SHORT.get(str(key).replace("-", "_"))
        if isinstance(value, dict):
            section, keys = str(key), {str(name): each for name, each in value.items()}
        elif short:
            section, keys = short[0], {short[1]: value}
        elif key in Config.model_fields:
            raise ValueError(f"{where}: '{key}' needs keys of its own, got {value!r}")
        else:
            raise ValueError(f"{where}: unknown key '{key}'; {nearest(str(key), {*Config.model_fields, *SHORT})}")
        owner = values.setdefault(section, {})
        if twice := owner.keys() & keys:
            raise ValueError(f"{where}: {section}.{min(twice)} is given twice")
        owner |= keys
    return values


def _fitting(values: Sections, arch: str) -> Sections:
    """For a baseline under another network's recipe: no options that only others have."""
    known = {"name", "net", *registry.options("arch", arch)}
    kept = values | {"arch": {key: value for key, value in values.get("arch", {}).items() if key in known}}
    if "iterations" not in known:
        kept["optim"] = {k: v for k, v in values.get("optim", {}).items() if k != "loc_lr_multiplier"}
    return kept


def overlay(*layers: Sections) -> Sections:
    """Later layers win key by key; one that gives a length, in epochs or in steps, replaces the lengths below it.

    One that names an architecture leaves out what is said below of options that this one does not have.
    """
    values: Sections = {}
    for layer in layers:
        if (arch := layer.get("arch", {}).get("name")) in registry.names("arch"):
            values = _fitting(values, arch)
        if LENGTHS & layer.get("train", {}).keys():
            values["train"] = {key: value for key, value in values.get("train", {}).items() if key not in LENGTHS}
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | keys
    return values


def build_config(values: Sections, where: str | Path) -> Config:
    try:
        return Config(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {type(given).__name__}")
    return given


def read_yaml(path: str | Path) -> Sections:
    """The sections of a file."""
    return normalise(read_mapping(path), path)


def load_yaml(path: str | Path) -> Config:
    return build_config(read_yaml(path), path)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in C where it was built: ten times as fast


def dump_yaml(config: Config) -> str:
    return yaml.dump(config.model_dump(mode="json"), Dumper=_DUMPER, sort_keys=False)


def steps_of(duration: str, steps_per_epoch: int | None = None, run: float | None = None) -> int:
    """The one place where epochs, and shares of a run of so many steps, become steps. Resolved ones need neither."""
    number, unit = duration.split()
    whole = {"steps": 1, "epochs": steps_per_epoch, "%": run and run / 100}[unit]
    assert whole is not None or not float(number), f"{duration} is not resolved"
    return round(float(number) * (whole or 0))


MOST_SEEDS = 1_000_000


def parse_seeds(text: str) -> list[int]:
    """'0,3,8-10' -> [0, 3, 8, 9, 10]."""
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise ValueError(f"seeds: cannot read '{part}' in '{text}'; write numbers and ranges, such as 0,3,8-15")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**31 or last - first >= MOST_SEEDS:
            raise ValueError(f"seeds: '{part}' goes beyond seed 2^31 - 1, or {MOST_SEEDS:,} seeds")
        if last < first:
            raise ValueError(f"seeds: the range '{part}' runs backwards")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: '{text}' names a seed twice")
    return seeds


def format_seeds(seeds: list[int]) -> str:
    """The inverse of parse_seeds for sorted seeds: [0, 3, 8, 9, 10] -> '0,3,8-10'."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def share(n: int, rank: int, world: int) -> range:
    """A rank's contiguous part of n things, such as seeds or rows; parts differ by at most one."""
    return range(rank * n // world, (rank + 1) * n // world)


def check(config: Config) -> None:
    """Combinations that no single field can judge."""
    optim, data, train = config.optim, config.data, config.train
    parse_seeds(train.seeds)
    if train.epochs is not None and train.steps is not None:
        raise ValueError("give epochs or steps, not both")
    if optim.name == "adamw" and optim.momentum is not None:
        raise ValueError("optim.name adamw takes no momentum; it has optim.betas")
    if optim.nesterov and (optim.name != "sgd" or optim.momentum == 0):
        raise ValueError("optim.nesterov needs optim.name sgd and a momentum above 0")
    if optim.schedule == "multistep" and not optim.milestones:
        raise ValueError("optim.schedule multistep needs optim.milestones")
    if optim.accumulate > data.batch_size:
        raise ValueError(f"optim.accumulate {optim.accumulate} exceeds batch_size {data.batch_size}")
    if not 0 < data.scale[0] <= data.scale[1]:
        raise ValueError(f"data.scale needs two rising numbers above 0, got {data.scale}")
    if train.precision == "fp16" and train.fuse not in ("auto", 1):
        raise ValueError("fp16 cannot fuse seeds: one seed's overflow would skip a step of all; use bf16")


_NOT_SCIENCE = {
    "data": {"root"},
    "optim": {"accumulate"},
    "train": {
        *("seeds", "epochs", "fraction", "compile", "cuda_graph", "parallel"),
        *("fuse", "processes", "threads", "time_limit"),
    },
    "eval": {"batch_size"},
}


def signature(config: Config) -> str:
    """What identifies an experiment: a hash of every resolved field that can change its result."""
    assert config.train.steps is not None, "only a resolved configuration has a signature"
    science = config.model_dump(mode="json", exclude={"checkpoint": True, "log": True, **_NOT_SCIENCE})
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:12]
