"""Plugins: modules outside this package that register architectures, data sets and the like.

A plugin is named by --plugin, by ``plugin:`` in YAML, or by an installed package's entry point in the group
``stn.plugins``. Its entries are read from its source, so that nothing of it runs until it is used; a module that
computes what it registers is imported at once.
"""

import builtins
import importlib
import sys
import typing
from collections.abc import Iterable
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stn.config import registry
from stn.config.fields import choices
from stn.config.registry import Entry, nearest, same_name

GROUP = "stn.plugins"
_loaded: dict[str, Path] = {}
"""Plugin -> its file or folder."""


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without running it or a package that it is in; the current folder comes last."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # where `python train.py` does not look; python -m does
    top, *rest = name.split(".")
    spec = find_spec(top)
    path = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        path = f"{path}.{part}"
        spec = PathFinder.find_spec(path, list(spec.submodule_search_locations))
    return spec


def _modules(name: str) -> dict[str, Path]:
    """Return a plugin's source files by module name: the module's, or all of a package."""
    if name.endswith(".py") or "/" in name:
        raise ValueError(f"plugin {name!r:.80}: name a module, not a file: {Path(name).stem}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"plugin {name!r:.80} is not a module's name, such as my_package.module")
    try:
        spec = _spec(name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"plugin {name}: {error}") from None
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise ValueError(
            f"no plugin {name}: Python finds no such module. Run in the folder where it lies, "
            "add that to PYTHONPATH, or install it (pip install -e .)"
        )
    if spec.submodule_search_locations:
        files = [file for folder in spec.submodule_search_locations for file in sorted(Path(folder).glob("*.py"))]
        return {name if file.stem == "__init__" else f"{name}.{file.stem}": file for file in files}
    return {name: Path(str(spec.origin))}


def _registered(name: str) -> bool:
    modules = [entry.module for entries in registry.entries.values() for entry in entries.values()]
    return any(module == name or module.startswith(f"{name}.") for module in modules)


def load(names: Iterable[str]) -> None:
    """Register what plugins offer; ValueError for one that is not there or registers nothing."""
    for name in names:
        if name in _loaded:
            continue
        modules = _modules(name)
        try:
            read = registry.read_modules({module: path for module, path in modules.items() if path.suffix == ".py"})
        except (ValueError, KeyError):  # what it registers is computed, or extends what is defined elsewhere
            read = 0
        except (OSError, SyntaxError) as error:
            raise ValueError(f"plugin {name}: {type(error).__name__}: {error}") from None
        if not read:
            _import(name)
        if not _registered(name):
            raise ValueError(f"plugin {name} registers nothing; decorate its functions: @stn.register('arch')")
        _loaded[name] = next(iter(modules.values()))


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever its code does
        raise ValueError(f"plugin {name} cannot be imported: {type(error).__name__}: {error}") from None


@cache
def load_installed() -> None:
    """Register what installed packages offer as entry points; a broken one is left out with a line."""
    for point in entry_points(group=GROUP):
        try:
            load([point.value.partition(":")[0]])
        except ValueError as error:
            print(f"warning: an installed plugin is left out: {error}", file=sys.stderr)


def load_named(train: dict[str, Any]) -> None:
    """Register installed plugins and those named in the section train; call it before any name is looked up."""
    load_installed()
    named = train.get("plugins") or ()
    if isinstance(named, str):
        train["plugins"] = named = tuple(part.strip() for part in named.split(","))
    load(name for name in named if isinstance(name, str))


def plugin_of(entry: Entry) -> str | None:
    """Return the plugin that an entry comes from; None if it is ours."""
    longest = sorted(_loaded, key=len, reverse=True)
    return next((name for name in longest if entry.module == name or entry.module.startswith(f"{name}.")), None)


def provenance(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the file of each plugin, and the version of its distribution."""
    found = {}
    for name in names:
        load([name])
        distributions = packages_distributions().get(name.partition(".")[0], [])
        try:
            number = version(distributions[0]) if distributions else None
        except PackageNotFoundError:
            number = None
        found[name] = {"file": str(_loaded[name]), "version": number}
    return found


def _annotation(entry: Entry, option: str) -> Any:
    """Return an option's annotation; without one, the type of its default, or Any if that is None."""
    default = entry.options[option]
    written = entry.types.get(option, Any if default is None else type(default))
    if not isinstance(written, str):
        return written
    try:
        return eval(written, vars(typing) | vars(builtins))
    except NameError:  # a name of its module
        function = getattr(importlib.import_module(entry.module), entry.function.name)  # type: ignore[attr-defined]
        return get_type_hints(function, include_extras=True)[option]


def _parse(entry: Entry, key: str, value: Any) -> Any:
    annotation = _annotation(entry, key)
    if isinstance(value, str):
        value = same_name(value, choices(annotation))
    adapter = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True))
    try:
        parsed = adapter.validate_python(value)
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{key}: {text[0].lower()}{text[1:]} (got {value!r:.80})") from None
    if isinstance(value, bool) and not isinstance(parsed, bool):
        raise ValueError(f"{key}: {value} is not valid here (YAML reads yes, no, on and off as booleans; quote it)")
    return parsed


def parse_plugin_options(arch: Any, values: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return the options of a plugin's architecture, parsed to their annotated types.

    Another architecture's options pass here; resolving refuses them, as it does the schema's.
    """
    archs = registry.entries["arch"]
    own = archs.get(registry.canonical("arch", arch)) if isinstance(arch, str) else None
    parsed, faults = {}, []
    for key, value in values.items():
        entry = next((entry for entry in [own, *archs.values()] if entry and key in entry.options), None)
        try:
            if entry is None:
                raise ValueError(f"unknown key {key!r:.80}; {nearest(key, {*known, *(own.options if own else ())})}")
            parsed[key] = entry.options[key] if value is None else _parse(entry, key, value)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return parsed
