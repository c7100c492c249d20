"""Metrics picked by name: their values, and that every rank has all rows."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stn.config import registry
from stn.config.registry import Entry
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Eval
from stn.config.seed_list import share
from stn.evaluation.accuracy import evaluate
from stn.evaluation.metrics import ece, gather_rows, metric_scores, worst_class_acc
from stn.multiseed.model import StackedModel
from stn.training.runtime import Runtime
from tests.support.networks import config_of, seeded_network  # noqa: F401


def test_calibration_error_by_hand() -> None:
    # Confidence 0.6 twice (one hit), 0.9 once (a hit): |(1 - 1.2) / 3| + |(1 - 0.9) / 3|.
    probabilities = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]], dtype=torch.float64)
    y_N = torch.tensor([0, 1, 1])
    assert float(ece(probabilities.log(), y_N)) == pytest.approx(0.1)
    assert float(ece(torch.tensor([[50.0, 0.0]]), torch.tensor([0]))) == pytest.approx(0)


def test_worst_class_is_of_the_classes_that_are_there() -> None:
    logits_NK = torch.eye(4)[torch.tensor([0, 0, 1, 2, 2, 2])]
    assert float(worst_class_acc(logits_NK, torch.tensor([0, 1, 1, 2, 2, 0]))) == 0.5


def test_every_rank_has_all_rows() -> None:
    whole_SNK = torch.randn(2, 11, 3)
    parts: list[Any] = []
    for rank in range(3):
        runtime = SimpleNamespace(rank=rank, world=3, total=lambda part: part)
        rows = share(11, rank, 3)
        parts.append(gather_rows(whole_SNK[:, rows.start : rows.stop], 11, runtime))  # type: ignore[arg-type]
    torch.testing.assert_close(sum(parts), whole_SNK, rtol=0, atol=0)


def test_each_seed_has_its_own_number_and_none_where_it_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_SNK = torch.stack([torch.zeros(5, 3), torch.full((5, 3), torch.nan)])
    monkeypatch.setitem(registry.entries["metric"], "most", Entry(lambda x, y: x.max(), "", {}, {}, "x"))
    assert metric_scores(["most"], logits_SNK, torch.zeros(5), "val") == [{"val_most": 0.0}, {"val_most": None}]
    monkeypatch.setitem(registry.entries["metric"], "wrong", Entry(lambda x, y: x.nothing, "", {}, {}, "x"))
    with pytest.raises(ValueError, match="metric wrong: AttributeError"):
        metric_scores(["wrong"], logits_SNK, torch.zeros(5), "val")


def test_an_evaluation_has_them_of_the_whole_test_set() -> None:
    config = resolve(Config(arch=Arch(name="cnn", net="tutorial"), data=Data(limit_test=70)))
    from functools import partial

    from stn.config.dataset import build_dataset
    from stn.data.stream import Stream
    from stn.models.build import build_network

    stream = Stream(config.data, build_dataset("mnist"), [0, 1])
    model = StackedModel(partial(build_network, config), [0, 1])
    found = evaluate(model, stream, Eval(batch_size=60, metrics=("ece", "worst_class_acc")), Runtime(config, 2))
    batch = stream.test_images(torch.arange(70))
    with torch.no_grad():
        logits_SNK = model.eval().predict(batch.x_BCHW)
    for score, logits_NK in zip(found, logits_SNK, strict=True):
        assert score["test_ece"] == pytest.approx(float(ece(logits_NK, batch.y_B)), abs=1e-5)
        assert score["test_worst_class_acc"] == min(score["per_class_acc"])
    assert "test_ece" not in evaluate(model, stream, Eval(batch_size=60), Runtime(config, 2))[0]


def test_a_name_that_every_row_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.entries["metric"], "loss", Entry(lambda x, y: 0, "", {}, {}, "x"))
    with pytest.raises(ValueError, match=r"eval\.metrics: loss is the name of a number that every evaluation has"):
        resolve(Config(eval=Eval(metrics=("loss",))))
