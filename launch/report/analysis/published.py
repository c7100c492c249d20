"""Published results for the recipes of configs/, and the cells that may be compared with them.

A cell qualifies only if it ran the whole recipe: nothing was published for another learning rate, batch size or length.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from launch.report.analysis.cells import Cell, is_number
from launch.report.analysis.stats import FEWEST_PAIRS, half_width, summary
from launch.report.analysis.tables import Entry, Table
from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Eval
from stn.config.yaml_files import RECIPES, build_config, normalise, overlay, read_yaml
from stn.tracking.console import warn

FILE = Path(__file__).with_name("published.yaml")


class PublishedResult(NamedTuple):
    """An entry of published.yaml, whose header explains the fields."""

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

    def compare(self, accuracies: list[float]) -> "Replication":
        """Compare the accuracies of our seeds with this result, in its unit."""
        ours = summary([100 - 100 * acc if self.unit == "error" else 100 * acc for acc in accuracies])
        half = None
        if ours.n >= FEWEST_PAIRS and ours.sd is not None and ours.sd > 1e-12 * ours.mean:
            half = half_width(ours.sd, ours.n, self.n or 1)
        return Replication(self, ours.n, ours.mean, ours.sd, ours.mean - float(self.value), half)

    def config(self) -> Config:
        """Return the configuration of a run that may be compared with this result."""
        path = RECIPES / f"{self.recipe}.yaml"
        overrides = {key: getattr(self, key) for key in ("dataset", "arch", "net") if getattr(self, key)}
        layers = read_yaml(path), normalise(overrides, FILE), normalise(self.options or {}, FILE)
        return build_config(overlay(*layers), path)


class Replication(NamedTuple):
    """Our seeds compared with a published result, in per cent."""

    published: PublishedResult
    n: int
    mean: float
    sd: float | None
    difference: float
    """Ours minus published."""
    half_width: float | None
    """Half the width of the interval of the difference; None with too few seeds, or if they are all the same."""

    @property
    def agrees(self) -> bool | None:
        return None if self.half_width is None else abs(self.difference) <= self.half_width


@cache
def published_results() -> tuple[PublishedResult, ...]:
    return tuple(PublishedResult(**entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8")))


def training_signature(resolved: Config) -> str:
    """Return the signature without the times of evaluation, which change no result of the last epoch."""
    return signature(resolved.model_copy(update={"eval": Eval(mirror=resolved.eval.mirror)}))


@cache
def _results_by_signature() -> dict[str, list[tuple[PublishedResult, str]]]:
    """Map training signatures of recipes to published results and the recipe's evaluation interval."""
    known: dict[str, list[tuple[PublishedResult, str]]] = {}
    faults: dict[str, ValueError] = {}
    for result in published_results():
        if (RECIPES / f"{result.recipe}.yaml").is_file():  # else it was deleted or renamed
            try:
                config = resolve(result.config())
            except ValueError as error:
                faults[result.recipe] = error
                continue
            known.setdefault(training_signature(config), []).append((result, config.eval.every))
    for recipe, error in faults.items():
        warn(f"results published for recipe {recipe} are not compared: {error}")
    return known


def _accuracies_at(cell: Cell, epoch: str | int) -> list[float]:
    """Return the test accuracy of every finished seed at an epoch."""
    if key := {"last": "test_acc", "best": "best_test_acc"}.get(str(epoch)):
        return list(cell.values(key).values())
    rows = [row for rows in cell.metrics["eval"].values() for row in rows if row.get("epoch") == epoch]
    return [row["test_acc"] for row in rows if is_number(row.get("test_acc"))]


def replications(cell: Cell) -> list[Replication]:
    """Compare the finished seeds of a cell with every result that was published for its recipe."""
    try:
        config = resolve(cell.config)
    except ValueError:  # its architecture or data set no longer exists
        return []
    compared = []
    for result, every in _results_by_signature().get(training_signature(config), []):
        more_chances = result.at == "best" and config.eval.every != every  # the best of more evaluations is better
        if not more_chances and (accuracies := _accuracies_at(cell, result.at)):
            compared.append(result.compare(accuracies))
    return compared


def replication_table(cells: Iterable[Cell]) -> Table | None:
    """Return the table of all replications of a data set; None if there are none."""
    headings = ["system", "architecture", "unit", "published", "ours, mean", "SD", "n", "difference"]
    headings.append("within the 95 % interval")
    rows = []
    for cell in cells:
        for ours in replications(cell):
            verdict = "no interval from so few seeds" if ours.n < FEWEST_PAIRS else "no interval: all seeds agree"
            if ours.half_width is not None:
                verdict = f"{'yes' if ours.agrees else 'no'} (± {ours.half_width:.2f})"
            result = ours.published
            row = [Entry(text, text) for text in (result.system, cell.label, f"% {result.unit}")]
            row += [Entry(str(result), float(result.value)), Entry.number(ours.mean, ".2f")]
            row += [Entry.number(ours.sd, ".2f"), Entry.number(ours.n), Entry.number(ours.difference, "+.2f")]
            rows.append([*row, Entry(verdict, verdict)])
    return Table(headings, rows) if rows else None
