"""Print what can be picked: ``--list``, and ``python -m stn list``, either with a pattern for architectures."""

from fnmatch import fnmatchcase
from pathlib import Path

from rich.table import Table
from rich.text import Text

from stn.config import plugins, registry
from stn.config.flags import take_plugins
from stn.config.yaml_files import RECIPES
from stn.tracking.console import console

TITLES = (
    ("arch", "Architectures", "--arch"),
    ("net", "Networks", "--net"),
    ("dataset", "Data sets", "--dataset"),
    ("reader", "Your own images", "--dataset NAME:PATH"),
    ("transform", "Transforms", "--arch.transform"),
    ("metric", "Metrics", "--eval.metrics"),
)


def _print_entries(title: str, found: dict[str, registry.Entry]) -> None:
    table = Table("name", "what it is", title=title, title_justify="left")
    for name, entry in found.items():
        own = [f"{key}={value}" for key, value in entry.options.items()] if plugins.plugin_of(entry) else []
        table.add_row(name, Text(" ".join([entry.line, *([f"Options: {', '.join(own)}."] if own else [])])))
    console.print(table)


def _print_files(title: str, paths: dict[str, Path]) -> None:
    table = Table("file", "what it is", title=title, title_justify="left")
    for name, path in paths.items():
        table.add_row(name, Text(path.read_text().splitlines()[0].lstrip("# ")))
    console.print(table)


def _like(pattern: str) -> dict[str, registry.Entry]:
    """Return the architectures that match a pattern; a word without *, ? or [ is looked for within their names."""
    asked = pattern.lower().replace("-", "_")
    asked = asked if set(asked) & set("*?[") else f"*{asked}*"  # a shell makes stn* of the folder stn the word stn
    return {name: entry for name, entry in registry.entries["arch"].items() if fnmatchcase(name.lower(), asked)}


def list_names(pattern: str = "*") -> int:
    """Print every name with a line of explanation, or the architectures that match a pattern."""
    if pattern != "*":
        if not (found := _like(pattern)):
            raise ValueError(f"no architecture matches {pattern!r:.80}; --list without a pattern has them all")
        _print_entries("Architectures (--arch)", found)
        return 0
    for kind, title, flag in TITLES:
        _print_entries(f"{title} ({flag})", registry.entries[kind])
    _print_files("Recipes (--config)", {f"configs/{path.name}": path for path in sorted(RECIPES.glob("*.yaml"))})
    sweeps = {path.stem: path for path in sorted((RECIPES / "sweeps").glob("*.yaml"))}
    _print_files("Sweeps (python -m launch sweep, or stn-launch sweep)", sweeps)
    return 0


def main(arguments: list[str]) -> int:
    arguments, named = take_plugins(arguments)
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        raise ValueError(f"list takes a pattern, such as 'stn*', and --plugin MODULE, got {' '.join(arguments)}")
    plugins.load_named({"plugins": named})
    return list_names(*arguments)
