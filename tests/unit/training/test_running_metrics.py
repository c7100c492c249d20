"""Running sums and failures, and how a checkpoint stores them."""

import math
from types import SimpleNamespace

import pytest
import torch

from stn.config.schema import Config
from stn.models.transformer import Localisation, Options, SpatialTransformer
from stn.multiseed.stacked import SeedOps
from stn.runs.directory import Row
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime

NAN = float("nan")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(Config(), 1)


def meter(runtime: Runtime, *losses: float) -> RunningMetrics:
    m = RunningMetrics([0, 1], runtime, "test")
    for step, loss in enumerate(losses):
        m.add(torch.tensor(step), torch.tensor([0.5, loss]), torch.tensor([1.0, 0.0]))
        m.count_images(20)
    return m


def train_rows(metrics: RunningMetrics, step: int) -> list[Row]:
    """Return the rows of a step at which no seed has failed."""
    rows = [row for row in metrics.train_rows(step, step / 10, [0.1, 0.2]) if row]
    assert len(rows) == 2
    return rows


def test_rows_are_means_since_the_last_rows(runtime: Runtime) -> None:
    m = meter(runtime, 1.0, 2.0)
    first, second = train_rows(m, 2)
    assert (first["loss"], first["acc"], second["loss"], second["acc"]) == (0.5, 1.0, 1.5, 0.0)
    m.add(torch.tensor(2), torch.tensor([0.1, 0.3]), torch.tensor([1.0, 1.0]))
    assert [row["loss"] for row in train_rows(m, 3)] == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_failed_seed_names_its_first_bad_step_and_leaves_the_other_alone(runtime: Runtime, bad: float) -> None:
    m = meter(runtime, 1.0, bad, 1.0, NAN)
    rows = m.train_rows(4, 0.4, [0.1, 0.2])
    assert m.failed == {1: 1}
    assert [row and row["seed"] for row in rows] == [0, None]
    assert m.alive()


def test_time_and_images_of_earlier_blocks_are_counted_for_each_seed_by_itself(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def spend(m: RunningMetrics, training_s: float, other_s: float, images: int) -> list[dict]:
        nonlocal now
        now += training_s
        m.tick(training=True)
        now += other_s
        m.tick(training=False)
        m.count_images(images)
        return m.state_dicts()

    four, one = (spend(RunningMetrics([0, 1], runtime, "test"), *cost) for cost in ((4, 2, 800), (1, 0, 100)))
    mixed = RunningMetrics([0, 1], runtime, "test")
    mixed.load_state_dicts([four[0], one[0]])
    mixed.last = {0: {}, 1: {}}
    spend(mixed, 6, 1, 200)
    assert [(row["wall_s"], row["images_per_s"]) for row in map(mixed.result, (0, 1))] == [
        (6 + 7, (800 + 200) / (4 + 6)),
        (1 + 7, (100 + 200) / (1 + 6)),
    ]


def test_on_a_gpu_the_clock_is_read_when_all_queued_work_is_done(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, calls, gpu = meter(runtime, 1.0), [], torch.device("cuda", 0)
    m.runtime = SimpleNamespace(device=gpu)  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "synchronize", calls.append)
    monkeypatch.setattr("time.perf_counter", lambda: calls.append("clock") or 0.0)
    for training in (True, False):
        m.tick(training)
    assert calls == [gpu, "clock"] * 2


def test_a_failure_between_rows_is_part_of_the_checkpoint(runtime: Runtime) -> None:
    saved = meter(runtime, 1.0, NAN, 1.0).state_dicts()
    assert (saved[0]["failed"], saved[1]["failed"]) == (None, 1)
    other = RunningMetrics([0, 1], runtime, "test")
    other.load_state_dicts(saved)
    assert other.failed == {1: 1}
    other.add(torch.tensor(3), torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.0]))
    first, second = other.train_rows(4, 0.4, [0.1, 0.2])
    assert first
    assert (first["loss"], first["lr"], second) == (0.5, 0.1, None)
    assert other.result(1)["reason"] == "non-finite loss at step 1"
    assert other.result(1)["test_acc"] is None


def test_a_nan_in_an_evaluation_is_a_failure(runtime: Runtime) -> None:
    m = meter(runtime, 1.0)
    good = {"test_acc": 0.5, "test_loss": 1.0, "macro_f1": 0.4, "test_count": 10}
    rows = m.eval_rows(7, 1.0, [good, good | {"test_loss": NAN}])
    assert [row and row["seed"] for row in rows] == [0, None]
    assert m.failed == {1: 7}


def test_best_is_the_first_of_equals(runtime: Runtime) -> None:
    m = meter(runtime)
    for epoch, acc in ((1.0, 0.5), (2.0, 0.9), (3.0, 0.9), (4.0, 0.7)):
        score = {"test_acc": acc, "test_loss": 1.0, "macro_f1": acc, "test_count": 10}
        m.eval_rows(int(epoch), epoch, [score, score])
    result = m.result(0)
    assert (result["test_acc"], result["best_test_acc"], result["best_epoch"]) == (0.7, 0.9, 2.0)


def test_theta_is_not_rounded_to_bf16() -> None:
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    head = Localisation(body, 4, (1.0, 0, 0, 0, 1, 0), 0, None, False)
    with torch.no_grad():
        head.last.bias[0] = 1.0035
    st = SpatialTransformer([head], 4, (4, 4), Options())
    with torch.autocast("cpu", torch.bfloat16):
        warp = st(torch.zeros(1, 1, 4, 4), lambda y, depth: y)
    assert warp.theta_BP[0, 0] == torch.tensor(1.0035)
    assert warp.grid_BHW2.dtype == torch.float32


def test_a_step_may_be_a_tensor() -> None:
    x, rows = torch.ones(6, 50), torch.arange(6)
    outs = []
    for step in (3, torch.tensor(3)):
        with SeedOps([1], torch.tensor([1]), step, rows):
            outs.append(torch.nn.functional.dropout(x))
    assert torch.equal(*outs)


def test_gradient_norms_are_means_and_left_out_where_one_is_not_finite(runtime: Runtime) -> None:
    m = RunningMetrics([0, 1], runtime, "test", grad_norm=True)
    ones = torch.ones(2)
    for step, norms in enumerate(([1.0, 2.0], [3.0, math.inf])):
        m.add(torch.tensor(step), ones, ones, torch.tensor(norms))
    without = RunningMetrics([0, 1], runtime, "test")
    without.load_state_dicts(m.state_dicts())
    again = RunningMetrics([0, 1], runtime, "test", grad_norm=True)
    again.load_state_dicts(without.state_dicts())
    assert [row.get("grad_norm") for row in train_rows(m, 2)] == [2.0, None]
    for other in (without, again):
        rows = train_rows(other, 2)
        assert [(row["loss"], row.get("grad_norm")) for row in rows] == [(1.0, None)] * 2
    again.add(torch.tensor(2), ones, ones, torch.tensor([1.0, 2.0]))
    assert [row["grad_norm"] for row in train_rows(again, 3)] == [1.0, 2.0]


def test_norms_of_clipping_are_not_logged_unless_asked_for(runtime: Runtime) -> None:
    m, ones = RunningMetrics([0, 1], runtime, "test"), torch.ones(2)
    m.add(torch.tensor(0), ones, ones, ones)
    assert ["grad_norm" in row for row in train_rows(m, 1)] == [False, False]
