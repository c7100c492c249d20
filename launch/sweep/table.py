"""How a sweep's standing looks on a terminal. Must not know where it comes from."""

from typing import Any

from rich.table import Table
from rich.text import Text

from launch.sweep.plan import Plan
from launch.sweep.status import STATES


def cells_table(plan: Plan, cells: list[dict[str, Any]], totals: dict[str, int]) -> Table:
    title = f"{plan.sweep.name}: {sum(totals.values()):,} seeds"
    table = Table(box=None, padding=(0, 1), title=title, title_justify="left")
    own = any(cell["setting"] for cell in cells)
    for heading in ("arch", "data set", *(["setting"] if own else [])):
        table.add_column(heading)
    for heading in (*STATES, "mean", "SD"):
        table.add_column(heading, justify="right")
    table.add_column("missing seeds", overflow="fold")
    for cell in cells:
        mean, sd = ("-" if cell[key] is None else f"{cell[key]:.2%}" for key in ("mean", "sd"))
        names = [Text(cell[key]) for key in ("arch", "dataset", *(["setting"] if own else []))]
        table.add_row(*names, *(str(cell[state] or "-") for state in STATES), mean, sd, cell["missing"])
    table.add_section()
    table.add_row("all", "", *([""] if own else []), *(str(totals[state] or "-") for state in STATES), style="bold")
    return table
