"""The metrics of a report, with those that the experiments name themselves."""

import csv
import io

from launch.report.analysis.cells import load
from launch.report.analysis.metrics import METRICS, Metric, metrics_of
from launch.report.output import markdown
from launch.sweep.plan import Plan


def test_the_axis_of_a_chart_says_what_is_drawn() -> None:
    """Charts show 1 - value of every accuracy, whatever its title."""
    axes = {metric.key: metric.axis for metric in (*METRICS, Metric("test_hard_acc", "hard_acc, last epoch"))}
    assert axes["test_acc"] == "Test error, last epoch (%)"
    assert axes["bypass_acc"] == "Error with the transformer bypassed (%)"
    assert axes["test_hard_acc"] == "1 - hard_acc, last epoch (%)"
    assert axes["test_loss"] == "Test loss, last epoch"
    assert not [axis for axis in axes.values() if "accuracy" in axis.lower()]


def test_metrics_that_an_experiment_names_are_columns_of_the_rows(plan: Plan) -> None:
    cells = load([str(plan.experiment)]).cells
    before = markdown.render_csv(cells).splitlines()
    config = cells[0].config
    named = config.eval.model_copy(update={"metrics": ("hard_acc", "unknown")})
    cells[0].config = config.model_copy(update={"eval": named})
    cells[0].rows[3] |= {"test_hard_acc": 0.25}
    assert "test_hard_acc" in [metric.key for metric in metrics_of(cells)]
    text = markdown.render_csv(cells)
    assert text.splitlines()[0] == f"{before[0]},test_hard_acc"
    assert [row["seed"] for row in csv.DictReader(io.StringIO(text)) if row["test_hard_acc"] == "0.25"] == ["3"]
    assert markdown.render_csv([]).splitlines() == before[:1]
