"""The figures of a report: what is drawn, against the numbers that they were given."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from launch.report.analysis.cells import Comparison, load
from launch.report.analysis.metrics import METRICS
from launch.report.analysis.sections import Panel, build_sections
from launch.report.analysis.tables import Entry, Table
from launch.report.output import apart, figures
from launch.report.output.latex import render_latex
from launch.sweep.plan import Plan
from tests.support.across import cells_of, sweep

ACCURACY = METRICS[0]


def chart(label: str, shift: float = 0.0, **more: Any) -> dict[str, Any]:
    errors = {"0": 0.05 + shift, "1": 0.03 + shift}
    values = {"seeds": errors, "mean": [0.04 + shift, 0.01 + shift, 0.07 + shift]}
    curve = {
        "x": [1.0, 2.0],
        "seeds": {"0": [0.2, 0.05], "1": [0.4, None]},
        "mean": [0.3, 0.05],
        "low": [0.1, None],
        "high": [0.5, None],
    }
    costs = {"params": 1000.0, "seconds": 7.0, "images_per_s": 9.0}
    empty = {"confusion": None, "pose": None}
    return {"label": label, "values": {"test_acc": values}, "curve": curve, "costs": costs} | empty | more


def lines(axis: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axis.get_lines()]


def axes(figure: Any) -> list[Any]:
    return figure.axes


def test_every_seed_with_mean_and_interval() -> None:
    without = chart("none", values={"test_acc": {"seeds": {}, "mean": [None] * 3}})
    (axis,) = axes(figures.seeds([chart("cnn"), without, chart("slx", 0.1)], ACCURACY))
    assert axis.get_ylabel() == "Test error, last epoch (%)"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["cnn", "slx"]
    (x, seeds), (_, interval), (_, mean), *second = lines(axis)
    assert seeds == pytest.approx([5.0, 3.0])
    assert interval == pytest.approx([1.0, 7.0])
    assert mean == pytest.approx([4.0])
    assert second[0][1] == pytest.approx([15.0, 13.0])
    assert max(x) < 0.5 < min(second[0][0]), "seeds and means do not overlap"
    first, other = (axis.get_lines()[i] for i in (0, 3))
    assert (first.get_color(), first.get_marker()) != (other.get_color(), other.get_marker())


def test_curves_have_means_seeds_and_intervals() -> None:
    (axis,) = axes(figures.curves([chart("cnn"), chart("none", curve=None)]))
    assert lines(axis) == [([1.0, 2.0], pytest.approx([30.0, 5.0]))]
    seeds, band = axis.collections
    assert [path.vertices.tolist() for path in seeds.get_paths()] == [
        [[1.0, pytest.approx(20.0)], [2.0, pytest.approx(5.0)]],
        [[1.0, pytest.approx(40.0)]],
    ]
    assert set(np.round(band.get_paths()[0].vertices[:, 1], 6)) == {10.0, 50.0}
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()) == ("epoch", "error (%)", "log")
    perfect = chart("cnn")["curve"] | {"seeds": {"0": [0.2, 0.0]}}
    assert axes(figures.curves([chart("cnn", curve=perfect)]))[0].get_yscale() == "linear"


def test_cost_stands_at_parameters_and_seconds() -> None:
    by_size, by_time = axes(figures.cost([chart("cnn")], ACCURACY))
    assert (by_size.get_xlabel(), by_time.get_xlabel()) == ("parameters", "seconds per seed")
    assert lines(by_size)[-1] == ([1000.0], pytest.approx([4.0]))
    assert lines(by_time)[-1] == ([7.0], pytest.approx([4.0]))
    assert len(axes(figures.cost([chart("cnn", costs={"params": 9.0, "seconds": None})], ACCURACY))) == 1


def test_confusion_is_in_shares_of_the_class() -> None:
    (axis,) = axes(figures.confusion([chart("cnn", confusion={"mean": [[3.0, 1.0], [0.0, 50.0]]})]))
    shown = axis.get_images()[0].get_array()
    assert shown.tolist() == [pytest.approx([0.75**0.4, 0.25**0.4]), [0.0, 1.0]]
    assert [text.get_text() for text in axis.texts] == ["75", "25", "", "100"]
    assert axis.get_ylabel() == "true class"


def test_poses_with_their_line() -> None:
    of = {"unit": "degrees", "points": [[10.0, 12.0], [-20.0, -18.0]], "slope": 0.9, "intercept": 2.0}
    (axis,) = axes(figures.pose([chart("slx", pose=of)]))
    assert lines(axis)[0] == ([10.0, -20.0], [12.0, -18.0])
    assert axis.get_title() == "slx\ny = 0.90 x +2.0"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("applied (degrees)", "predicted (degrees)")
    assert axis.get_ylim() == pytest.approx((-18.9, 18.9))
    lines_through = [line for line in axis.get_lines() if hasattr(line, "get_slope")]
    assert [(line.get_xy1(), line.get_slope()) for line in lines_through] == [((0, 0), 1), ((0, 2.0), 0.9)]


def test_more_tiles_than_fit_are_counted() -> None:
    many = [
        chart(str(i), pose={"unit": "pixels", "points": [[0, 0]], "slope": None, "intercept": None}) for i in range(14)
    ]
    figure = figures.pose(many)
    assert figure is not None
    assert figure.get_suptitle() == "The first 12 of 14"
    assert [axis.get_title() for axis in figure.axes] == [str(i) for i in range(12)]


def test_the_matrix_says_which_way() -> None:
    rows = [
        [Entry("cnn"), Entry(""), Entry("-1.20", -1.2, "", "worse")],
        [Entry("slx"), Entry("+1.20", 1.2, "", "better"), Entry("")],
    ]
    table = Table(["row - column", "cnn", "slx"], rows)
    (axis,) = axes(figures.pairs(Panel(ACCURACY, table, None, table, "", [])))
    assert [(text.get_position(), text.get_text()) for text in axis.texts if text.get_text()] == [
        ((1, 0), "\N{BLACK DOWN-POINTING TRIANGLE} -1.20"),
        ((0, 1), "\N{BLACK UP-POINTING TRIANGLE} +1.20"),
    ]
    assert axis.get_title() == "Test accuracy, last epoch: row - column in points"
    assert [text.get_text() for text in axis.get_yticklabels()] == ["cnn", "slx"]


@pytest.mark.slow
def test_several_processes_draw_what_one_draws(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = build_sections(load([str(plan.experiment)]), tmp_path)
    started: list[list[str]] = []

    class Noted(subprocess.Popen):
        def __init__(self, words: list[str], *arguments: Any, **named: Any) -> None:
            started.append(words)
            super().__init__(words, *arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(apart, "cores", lambda: 2)
    drawn = {}
    for each, workers in ((apart.EACH, 0), (1, 2)):
        monkeypatch.setattr(apart, "EACH", each)
        apart.draw(sections, tmp_path / str(each), "pdf")
        drawn[each] = {path.name: path.read_bytes() for path in (tmp_path / str(each)).iterdir()}
        assert len(started) == workers
    assert drawn[1] == drawn[6]
    assert len(drawn[1]) == 3 * sum(len(section.figures) for section in sections) > 6
    monkeypatch.chdir(tmp_path)
    Path("numpy.py").write_text("raise SystemExit('theirs')")
    apart.draw(sections, Path("a folder with modules"))
    Path("file").touch()
    with pytest.raises(OSError, match=r"figures could not be drawn: .*file"):
        apart.draw(sections, tmp_path / "file")
    monkeypatch.setattr(apart, "sys", SimpleNamespace(executable="false"))
    with pytest.raises(OSError, match="exit code 1"):
        apart.draw(sections, tmp_path / "file")


def test_data_sets_whose_names_have_other_letters_share_no_file_or_label(tmp_path: Path) -> None:
    cells = cells_of(sweep(2, datasets=("mnist", "mnist_p", "mnist_r")))
    for cell in cells:
        name = {"mnist_p": "npz:Übung.npz", "mnist_r": "npz:Äbung.npz"}.get(cell.dataset, cell.dataset)
        cell.config = cell.config.model_copy(update={"data": cell.config.data.model_copy(update={"name": name})})
    sections = build_sections(Comparison("x", cells, []), tmp_path)
    assert [section.name for section in sections] == ["mnist", "Übung", "Äbung"]
    files = [name for section in sections for name in section.figures.values()]
    assert files[:2] == ["mnist-pairs.png", "mnist-seeds.png"]
    assert len(set(files)) == len(files) == 3 * len(sections[0].figures)
    assert all(name.isascii() for name in files)
    labels = re.findall(r"\\label\{(.*?)\}", render_latex(sections))
    assert len(set(labels)) == len(labels) == 6
    apart.draw(sections, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == set(files)
