"""How many threads a training takes: the cores that others leave, and what it had before where it goes on."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stn.commands import unfinished
from stn.config.schema import Config, Train
from stn.runs.directory import RunDir
from stn.training import runtime
from stn.training.runtime import Runtime
from tests.support.seeds import config, trials
from tests.support.trainer import QUICK, SMALL, only_run, train


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _threads(busy: int | None, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> int:
    neighbours: Any = None if busy is None else SimpleNamespace(busy_cores=lambda: busy)
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    Runtime(Config(train=Train(**settings)), 1, neighbours=neighbours)
    return torch.get_num_threads()


def test_busy_cores_are_left_to_others_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [_threads(busy, monkeypatch) for busy in (None, 0)] == [4, 4]
    assert "threads" not in capsys.readouterr().out
    assert [_threads(busy, monkeypatch) for busy in (1, 4)] == [3, 1]
    assert "3 of 4 threads: other programs keep 1 of 4 cores busy" in capsys.readouterr().out
    assert _threads(3, monkeypatch, threads=2) == 2
    assert _threads(3, monkeypatch, deterministic=True) == 4
    torch.use_deterministic_algorithms(False)


def test_a_run_that_goes_on_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*QUICK, *SMALL, "--dataset", "mnist", "--steps", 20, "--seeds", 0)
    assert train(*words, "--train.threads", 2, "--train.time-limit", "1e-6", runs=tmp_path).returncode == 0
    run = RunDir(only_run(tmp_path).path)
    known = trials(tmp_path, config())[:1]
    known[0] = known[0]._replace(run=run, seed=0)
    monkeypatch.setattr(unfinished, "cores", lambda: 2)
    assert unfinished._threads_so_far(known) == 2
    asked = config().model_copy(update={"train": Train(threads=1)})
    assert unfinished._threads_so_far([known[0]._replace(config=asked)]) is None
    assert unfinished._threads_so_far([known[0]._replace(seed=5)]) is None, "not begun"
    monkeypatch.setattr(unfinished, "cores", lambda: 1)
    assert unfinished._threads_so_far(known) is None, "a machine with fewer cores"
    monkeypatch.setattr(unfinished, "cores", lambda: 2)
    run.env.write_text("damaged")
    assert unfinished._threads_so_far(known) is None
