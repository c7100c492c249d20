"""The metrics of a report, with those that the experiments name themselves."""

from launch.report.analysis.metrics import METRICS, Metric


def test_the_axis_of_a_chart_says_what_is_drawn() -> None:
    """Charts show 1 - value of every accuracy, whatever its title."""
    axes = {metric.key: metric.axis for metric in (*METRICS, Metric("test_hard_acc", "hard_acc, last epoch"))}
    assert axes["test_acc"] == "Test error, last epoch (%)"
    assert axes["bypass_acc"] == "Error with the transformer bypassed (%)"
    assert axes["test_hard_acc"] == "1 - hard_acc, last epoch (%)"
    assert axes["test_loss"] == "Test loss, last epoch"
    assert not [axis for axis in axes.values() if "accuracy" in axis.lower()]
