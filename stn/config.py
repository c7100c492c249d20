"""A configuration's YAML form, its durations and seed lists, and its signature.

Must not know torch, nor the command line.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from stn.registry import nearest
from stn.schema import Config

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


def find_recipe(name: str) -> Path:
    """A file, or one of configs/ with or without its ending."""
    for path in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise ValueError(f"no recipe '{name}'; {nearest(Path(name).stem, {p.stem for p in RECIPES.glob('*.yaml')})}")


def load_yaml(path: str | Path) -> Config:
    """Read a configuration; short names such as ``lr`` are taken at the top level."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {type(given).__name__}")
    values: dict[str, Any] = {}
    for key, value in given.items():
        section, name = SHORT.get(str(key).replace("-", "_"), (None, None))
        if section and not isinstance(value, dict):
            owner = values.setdefault(section, {})
            if name in owner:
                raise ValueError(f"{path}: {section}.{name} is given twice")
            owner[name] = value
        elif isinstance(value, dict):
            twice = set(values.setdefault(key, {})) & set(value)
            if twice:
                raise ValueError(f"{path}: {key}.{min(twice)} is given twice")
            values[key] |= value
        elif key in Config.model_fields:
            raise ValueError(f"{path}: '{key}' needs keys of its own, got {value!r}")
        else:
            raise ValueError(f"{path}: unknown key '{key}'; {nearest(str(key), {*Config.model_fields, *SHORT})}")
    try:
        return Config(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def dump_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def steps_of(duration: str, steps_per_epoch: int) -> int:
    """The one place where epochs become steps."""
    number, unit = duration.split()
    return round(float(number) * (steps_per_epoch if unit == "epochs" else 1))


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


_NOT_SCIENCE = {
    "data": {"root"},
    "optim": {"accumulate"},
    "train": {"seeds", "epochs", "compile", "cuda_graph", "parallel", "fuse", "processes", "threads", "time_limit"},
    "eval": {"batch_size"},
}


def signature(config: Config) -> str:
    """What identifies an experiment: a hash of every resolved field that can change its result."""
    assert config.train.steps is not None, "only a resolved configuration has a signature"
    science = config.model_dump(mode="json", exclude={"checkpoint": True, "log": True, **_NOT_SCIENCE})
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:12]
