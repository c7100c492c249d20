"""Print what can be picked: ``--list``, and ``python -m stn list``."""

from rich.table import Table
from rich.text import Text

from stn.config import plugins, registry
from stn.config.flags import take_plugins
from stn.config.yaml_files import RECIPES
from stn.tracking.console import console


def list_names() -> int:
    """Print every name with a line of explanation."""
    for kind, title in (("arch", "Architectures"), ("net", "Networks"), ("dataset", "Data sets")):
        table = Table("name", "what it is", title=f"{title} (--{kind})", title_justify="left")
        for name, entry in registry.entries[kind].items():
            table.add_row(name, Text(entry.line))
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
