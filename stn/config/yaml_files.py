"""A configuration as YAML: reading, layering, building and writing it, and finding recipes by name."""

from pathlib import Path
from typing import Any

import yaml

from stn.config import registry
from stn.config.registry import nearest
from stn.config.schema import Config

RECIPES = Path(__file__).parents[2] / "configs"


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
    """Return a file, or the recipe of that name, with or without its ending."""
    for path in (Path(name), folder / name, folder / f"{name}.yaml"):
        if path.is_file():
            return path
    raise ValueError(f"no {kind} '{name}'; {nearest(Path(name).stem, {p.stem for p in folder.glob('*.yaml')})}")


Sections = dict[str, dict[str, Any]]
"""Section -> key -> value: a configuration, or what is to be laid over one."""


def normalise(mapping: dict, where: str | Path) -> Sections:
    """Return a mapping by section; short names such as ``lr`` are taken at the top level."""
    values: Sections = {}
    for key, value in mapping.items():
        short = SHORT.get(str(key).replace("-", "_"))
        if isinstance(value, dict):
            section, keys = str(key), {str(name): v for name, v in value.items()}
        elif short:
            section, keys = short[0], {short[1]: value}
        elif key in Config.model_fields:
            raise ValueError(f"{where}: '{key}' needs keys of its own, got {value!r}")
        else:
            raise ValueError(f"{where}: unknown key '{key}'; {nearest(str(key), {*Config.model_fields, *SHORT})}")
        if twice := values.get(section, {}).keys() & keys:
            raise ValueError(f"{where}: {section}.{min(twice)} is given twice")
        values[section] = values.get(section, {}) | keys
    return values


def overlay(*layers: Sections) -> Sections:
    """Return all layers in one; later ones win key by key.

    A length, in epochs or in steps, replaces the lengths of the layers below it. The name of an architecture removes
    the options below it that this architecture does not have: a recipe's, under a baseline.
    """
    values: Sections = {}
    for layer in layers:
        arch = layer.get("arch", {}).get("name")
        if arch in registry.entries["arch"]:
            options = {"name", "net", *registry.find("arch", arch).options}
            values["arch"] = {key: value for key, value in values.get("arch", {}).items() if key in options}
            if "iterations" not in options:
                values.get("optim", {}).pop("loc_lr_multiplier", None)
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
    """Return the keys of a YAML file."""
    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(mapping, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {type(mapping).__name__}")
    return mapping


def read_yaml(path: str | Path) -> Sections:
    """Return the sections of a YAML file."""
    return normalise(read_mapping(path), path)


def load_yaml(path: str | Path) -> Config:
    return build_config(read_yaml(path), path)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the one in C, where it was built, is ten times as fast


def dump_yaml(config: Config) -> str:
    return yaml.dump(config.model_dump(mode="json"), Dumper=_DUMPER, sort_keys=False)
