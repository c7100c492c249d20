"""The metrics that architectures are compared by: their keys in result rows, titles, units and digits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from launch.report.analysis.cells import Cell
from stn.config.dataset import build_dataset


@dataclass(frozen=True)
class Metric:
    """A number of a result row, and how it is written; by default a share in per cent."""

    key: str
    title: str
    scale: float = 100.0
    unit: str = "%"
    digits: int = 2
    higher_is_better: bool | None = True
    """None if neither direction is better."""

    def format(self, value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{self.scale * value:{sign}.{self.digits}f}"

    def interval(self, low: float, high: float, sign: str = "", margin: float | None = None) -> str:
        """Return an interval with as many digits as show on which side of 0, and of ± margin, its ends are."""
        digits, ends = self.digits, [self.scale * low, self.scale * high]
        bound = round(self.scale * (margin or 0.0), 12)
        bounds = (-bound, 0.0, bound)
        while digits < self.digits + 6 and any(
            _sides(end, bounds) != _sides(round(end, digits), bounds) for end in ends
        ):
            digits += 1
        return " to ".join(f"{end:{sign}.{digits}f}" for end in ends)

    def difference(self, value: float, sign: str = "") -> str:
        """Return a difference with its unit."""
        return self.format(value, sign) + self.difference_unit.removeprefix(" in")

    def margin(self, points: float | None) -> float | None:
        """Return a margin in points in the unit of the values; None for what is no share."""
        return points / self.scale if points is not None and self.unit == "%" else None

    @property
    def difference_unit(self) -> str:
        """The unit of a difference, to be appended to a heading."""
        return {"%": " in points", "": ""}.get(self.unit, f" in {self.unit}")

    @property
    def names_images(self) -> bool:
        """Whether the key says on which images it is measured; another is of those that a run was evaluated on."""
        return self.key.startswith(("test_", "val_", "best_test_", "best_val_"))

    @property
    def axis(self) -> str:
        """The label of a chart's axis."""
        title = self.title
        if self.is_accuracy:
            title = title.replace("accuracy", "error").replace("Accuracy", "Error")
            title = f"1 - {title}" if title == self.title else title
        return f"{title} ({self.unit})" if self.unit else title

    @property
    def is_accuracy(self) -> bool:
        """Whether charts show 1 - value."""
        return self.key.endswith("_acc")


def _sides(value: float, bounds: Sequence[float]) -> list[int]:
    """Return 1 for every bound that a value is above, 0 for one that it is at, -1 for one that it is below."""
    return [(value > bound) - (value < bound) for bound in bounds]


METRICS = (
    Metric("test_acc", "Test accuracy, last epoch"),
    Metric("best_test_acc", "Test accuracy, best epoch (selected on the test set)"),
    Metric("test_top5_acc", "Test accuracy, last epoch, true class among the top 5"),
    Metric("val_acc", "Validation accuracy, last epoch"),
    Metric("best_val_acc", "Validation accuracy, best epoch"),
    Metric("val_top5_acc", "Validation accuracy, last epoch, true class among the top 5"),
    Metric("macro_f1", "Macro F1, last epoch"),
    Metric("test_loss", "Test loss, last epoch", 1.0, "", digits=4, higher_is_better=False),
    Metric("val_loss", "Validation loss, last epoch", 1.0, "", digits=4, higher_is_better=False),
    Metric("bypass_acc", "Accuracy with the transformer bypassed"),
    Metric("feature_agreement", "Agreement of feature maps", 1.0, "", digits=3),
    Metric("pose_spread", "Spread of the final pose", 1.0, "", digits=3, higher_is_better=False),
    Metric("pose_determinant", "Mean determinant of the image transform", 1.0, "", digits=3, higher_is_better=None),
)
"""In the order of the page. A data set is judged by the first metric that it has."""
POSE_UNITS = {"degrees": "degrees", "log2_area": "log2 of the area", "shift": "pixels"}
"""Units by kind of pose, in the order of stn.evaluation.pose."""


def picked(cells: Sequence[Cell]) -> list[Metric]:
    """Return the metrics that these experiments name themselves (--eval.metrics); in which direction is not known."""
    keys = {f"{cell.config.data.split}_{name}": name for cell in cells for name in cell.config.eval.metrics}
    number: dict[str, Any] = {"scale": 1.0, "unit": "", "digits": 4, "higher_is_better": None}
    named = [
        Metric(key, f"{name}, last epoch", **({} if key.endswith("_acc") else number)) for key, name in keys.items()
    ]
    return [metric for metric in named if any(cell.values(metric.key) for cell in cells)]


def metrics_of(cells: Sequence[Cell]) -> list[Metric]:
    """Return the metrics that at least one seed has; the first of METRICS if no seed has any."""
    metrics = [metric for metric in METRICS if any(cell.values(metric.key) for cell in cells)] or [METRICS[0]]
    metrics += picked(cells)
    try:
        poses = build_dataset(cells[0].dataset).pose
    except ValueError:  # the data set no longer exists
        poses = ()
    units = [unit for kind, unit in POSE_UNITS.items() if ("x" if kind == "shift" else kind) in poses]
    unit = units[0] if units else ""
    return [replace(metric, unit=unit) if metric.key == "pose_spread" else metric for metric in metrics]
