"""What others published for the recipes of configs/, and which of it a cell may be held against.

Only a whole run of the very recipe may: of another learning rate, batch size or length nothing was published.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from launch.report.analysis.cells import Cell, is_number
from launch.report.analysis.stats import half_width, summary
from launch.report.analysis.tables import Table, Value
from stn.config.resolve import resolve
from stn.config.schema import Config, Eval
from stn.config.signature import signature
from stn.config.yaml_files import RECIPES, build_config, normalise, overlay, read_yaml

FILE = Path(__file__).with_name("published.yaml")


class Figure(NamedTuple):
    """An entry of published.yaml, where the fields are explained."""

    system: str
    recipe: str
    dataset: str
    at: str | int
    value: str
    n: int | None
    unit: str
    source: str
    arch: str | None = None
    net: str | None = None
    options: dict[str, Any] | None = None
    listed: bool = True

    def __str__(self) -> str:
        return self.value if self.n is None else f"{self.value} (n = {self.n})"

    def ours(self, accuracy: float) -> float:
        """An accuracy in this figure's unit."""
        return 100 - 100 * accuracy if self.unit == "error" else 100 * accuracy

    def beside(self, accuracies: list[float]) -> "Beside":
        s = summary([self.ours(accuracy) for accuracy in accuracies])
        half = None if s.sd is None else half_width(s.sd, s.n, self.n or 1)
        return Beside(self, s.n, s.mean, s.sd, s.mean - float(self.value), half)

    def config(self) -> Config:
        """Of a run that the figure may stand beside."""
        path = RECIPES / f"{self.recipe}.yaml"
        own = {key: getattr(self, key) for key in ("dataset", "arch", "net") if getattr(self, key)}
        layers = read_yaml(path), normalise(own, FILE), normalise(self.options or {}, FILE)
        return build_config(overlay(*layers), path)


@dataclass(frozen=True)
class Beside:
    """A published figure beside ours, in per cent."""

    figure: Figure
    n: int
    mean: float
    sd: float | None
    difference: float
    """Ours minus theirs."""
    half: float | None
    """Of the width of the difference's interval; None for a single seed of ours."""

    @property
    def agrees(self) -> bool | None:
        return None if self.half is None else abs(self.difference) <= self.half


@cache
def figures() -> tuple[Figure, ...]:
    return tuple(Figure(**entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8")))


def science(resolved: Config) -> str:
    """The signature, however often it is evaluated."""
    return signature(resolved.model_copy(update={"eval": Eval()}))


@cache
def _known() -> dict[str, list[tuple[Figure, str]]]:
    """By ``science`` of their recipe: figures, and how often the recipe evaluates."""
    known: dict[str, list[tuple[Figure, str]]] = {}
    for figure in figures():
        if (RECIPES / f"{figure.recipe}.yaml").is_file():  # not beside an installed package
            config = resolve(figure.config())
            known.setdefault(science(config), []).append((figure, config.eval.every))
    return known


def _evaluated(cell: Cell, epochs: set[str | int]) -> dict[str | int, list[float]]:
    """Accuracies of the seeds that have finished, at these epochs."""
    rows = [row for of_seed in cell.metrics["eval"].values() for row in of_seed] if epochs else []
    known = [row for row in rows if is_number(row.get("test_acc"))]
    return {epoch: [row["test_acc"] for row in known if row.get("epoch") == epoch] for epoch in epochs}


def beside(cell: Cell) -> list[Beside]:
    """The figures that were published for what this cell is, where some of its seeds have finished."""
    try:
        config = resolve(cell.config)
    except ValueError:  # an architecture or a data set that is no longer there
        return []
    known = _known().get(science(config), [])
    ours = _evaluated(cell, {figure.at for figure, _ in known} - {"last", "best"})
    ours |= {at: list(cell.values(key).values()) for at, key in (("last", "test_acc"), ("best", "best_test_acc"))}
    found = []
    for figure, every in known:
        if not ours[figure.at] or (figure.at == "best" and config.eval.every != every):
            continue  # the best of more evaluations is a better one
        found.append(figure.beside(ours[figure.at]))
    return found


def table(cells: Iterable[Cell]) -> Table | None:
    """All of a data set; none where there is nothing to compare."""
    headings = ["system", "architecture", "unit", "published", "ours, mean", "SD", "n", "difference"]
    rows = []
    for cell in cells:
        for found in beside(cell):
            verdict = "one run says nothing"
            if found.half is not None:
                verdict = f"{'yes' if found.agrees else 'no'} (± {found.half:.2f})"
            figure = found.figure
            line = [Value(word, word) for word in (figure.system, cell.label, f"% {figure.unit}")]
            line += [Value(str(figure), float(figure.value)), Value(f"{found.mean:.2f}", found.mean)]
            line += [Value("-" if found.sd is None else f"{found.sd:.2f}", found.sd), Value(str(found.n), found.n)]
            rows.append([*line, Value(f"{found.difference:+.2f}", found.difference), Value(verdict, verdict)])
    return Table([*headings, "within the 95 % interval"], rows) if rows else None
