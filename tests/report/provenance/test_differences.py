"""What differs between configurations: differences only, by the shortest names."""

from pathlib import Path

import pytest

from launch.report.analysis.cells import Cell
from launch.report.provenance.differences import MOST_NAMES, differences
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim, Train


def cell(arch: str = "cnn", data: str = "mnist", lr: float = 0.001, batch: int = 256, **options) -> Cell:
    config = Config(arch=Arch(name=arch, **options), data=Data(name=data, batch_size=batch), optim=Optim(lr=lr))
    return Cell("sig", resolve(config), Path())


def rows(*cells: Cell) -> dict[str, str]:
    table = differences(cells)
    return {field.text: values.text for field, values in table.rows} if table else {}


def test_nothing_differs_but_architecture_and_data_set() -> None:
    assert rows(cell(), cell("stn_slx"), cell("stn_cx")) == {}
    assert differences([]) is None
    seeds = cell()
    seeds.config = seeds.config.model_copy(update={"train": Train(seeds="3-9", steps=seeds.config.train.steps)})
    assert rows(cell(), seeds) == {}, "seeds are no difference"


def test_values_have_their_cells() -> None:
    assert rows(cell(), cell("stn_slx", lr=0.01), cell("stn_cx", lr=0.01)) == {
        "optim.lr": "0.01: stn_cx, stn_slx; 0.001: cnn"
    }
    by_data = [cell(data=data, arch=arch, batch=64 if data == "mnist_r" else 256)
               for data in ("mnist", "mnist_r") for arch in ("cnn", "stn_slx")]  # fmt: skip
    found = rows(*by_data)
    assert found["data.batch_size"] == "256: mnist; 64: mnist_r"
    mixed = [cell(), cell("stn_slx"), cell(data="mnist_r"), cell("stn_slx", "mnist_r", lr=0.5)]
    assert rows(*mixed)["optim.lr"] == "0.001: all others; 0.5: stn_slx on mnist_r"


def test_options_that_an_architecture_does_not_take_are_no_difference() -> None:
    assert rows(cell("cnn"), cell("stn_slx", padding="zeros"), cell("stn_cx", padding="border")) == {
        "arch.padding": "border: stn_cx; zeros: stn_slx"
    }


def changed(section: str, **values: object) -> Cell:
    other = cell("stn_slx")
    part = getattr(other.config, section).model_copy(update=values)
    other.config = resolve(other.config.model_copy(update={section: part}))
    return other


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("data", {"limit_test": 1000}, {"data.limit_test": "all: cnn, stn_cx; 1000: stn_slx"}),
        ("data", {"limit_train": 1000}, {"data.limit_train": "all: cnn, stn_cx; 1000: stn_slx"}),
        ("arch", {"size": 20}, {"arch.size": "20: stn_slx; the network's own: stn_cx"}),
        ("arch", {"feed_theta": True}, {"arch.feed_theta": "no: stn_cx; yes: stn_slx"}),
        (
            "optim",
            {"name": "sgd"},
            {"optim.momentum": "none: cnn, stn_cx; 0.9: stn_slx", "optim.name": "adamw: cnn, stn_cx; sgd: stn_slx"},
        ),
    ],
)
def test_a_value_differs_from_none(section: str, values: dict[str, object], expected: dict[str, str]) -> None:
    assert rows(cell(), changed(section, **values), cell("stn_cx")) == expected


def test_an_architecture_that_no_longer_exists_is_told_by_what_it_has() -> None:
    gone = changed("optim", lr=0.5)
    gone.config = gone.config.model_copy(update={"arch": gone.config.arch.model_copy(update={"name": "gone"})})
    assert rows(cell(), gone) == {"optim.lr": "0.001: cnn; 0.5: gone"}


def test_many_cells_are_counted() -> None:
    many = [cell() for _ in range(MOST_NAMES + 1)]
    for i, each in enumerate(many):
        each.setting = str(i)
    assert rows(*many, cell("stn_slx", lr=0.5))["optim.lr"] == f"0.001: {MOST_NAMES + 1} cells; 0.5: stn_slx"
