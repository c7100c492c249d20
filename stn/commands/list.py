"""Print what can be picked: ``--list``, and ``python -m stn list``."""

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


def list_names() -> int:
    """Print every name with a line of explanation."""
    for kind, title, flag in TITLES:
        table = Table("name", "what it is", title=f"{title} ({flag})", title_justify="left")
        for name, entry in registry.entries[kind].items():
            own = [f"{key}={value}" for key, value in entry.options.items()] if plugins.plugin_of(entry) else []
            table.add_row(name, Text(" ".join([entry.line, *([f"Options: {', '.join(own)}."] if own else [])])))
        console.print(table)
    table = Table("file", "what it is", title="Recipes (--config)", title_justify="left")
    for path in sorted(RECIPES.glob("*.yaml")):
        table.add_row(f"configs/{path.name}", Text(path.read_text().splitlines()[0].lstrip("# ")))
    console.print(table)
    return 0


def main(arguments: list[str]) -> int:
    arguments, named = take_plugins(arguments)
    if arguments:
        raise ValueError(f"list takes --plugin MODULE and nothing else, got {' '.join(arguments)}")
    plugins.load_named({"plugins": named})
    return list_names()
