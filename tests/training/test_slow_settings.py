"""Settings that are slower here than the default: timed beside it, and said with the factor."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from stn.commands.check import check
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Train
from stn.runs.cores import Neighbours
from stn.runs.trials import build_trials
from stn.training import runtime, slow_settings
from stn.training.runtime import Runtime

Timed = tuple[str, bool, int, int]


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Threads and precision are a process's: Accelerate keeps the first that it is asked for."""
    before = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(before)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Timed]:
    """A machine where bf16, compiling, eight threads and eight seeds at once each cost half of the speed."""
    asked: list[Timed] = []

    def images_per_s(config: Config, size: int, *_: object) -> float:
        threads = torch.get_num_threads()
        asked.append((config.train.precision, config.train.compile, threads, size))
        slow = (config.train.precision == "bf16") + config.train.compile + (threads == 8) + (size == 8)
        return 1000 * 0.5**slow

    monkeypatch.setattr(slow_settings, "images_per_s", images_per_s)
    monkeypatch.setattr(slow_settings, "cores", lambda: 2)
    return asked


def said(thorough: bool = True, seeds: str = "0-9", size: int = 4, **settings: Any) -> list[str]:
    config = resolve(Config(arch=Arch(name="cnn"), train=Train(seeds=seeds, **settings)))
    trials = build_trials([config])
    AcceleratorState._reset_state(reset_partial_state=True)
    return slow_settings.slow_settings(trials, size, Runtime(config, len(trials)), lambda *_: None, thorough)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"precision": "bf16"}, "--precision bf16 trains 0.50 times as fast as the default (fp32)"),
        ({"compile": True}, "--train.compile trains 0.50 times as fast as the default (without)"),
        ({"threads": 8}, "--train.threads 8 trains 0.50 times as fast as the default (2)"),
        ({"fuse": 8, "size": 8}, "--fuse 8 trains 0.50 times as fast as the default (4)"),
    ],
)
def test_a_setting_that_costs_speed_is_said_with_the_factor(
    settings: dict[str, Any], sentence: str, timed: list[Timed]
) -> None:
    before = torch.get_num_threads()
    assert said(**settings) == [f"{sentence} on this machine: 500 instead of 1,000 images/s"]
    assert len(timed) == 2
    assert torch.get_num_threads() == (8 if "threads" in settings else before)


@pytest.mark.usefixtures("timed")
def test_each_of_several_is_compared_with_the_default_in_its_place() -> None:
    assert [text.split(" trains ")[0] for text in said(precision="bf16", threads=8)] == [
        "--precision bf16",
        "--train.threads 8",
    ]


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "fp64"}, {"threads": 1}, {"fuse": 4}, {"fuse": 8, "size": 8, "seeds": "0-3"}]
)
def test_the_defaults_and_what_is_no_question_of_speed_are_not_timed(
    settings: dict[str, Any], timed: list[Timed]
) -> None:
    assert said(**settings) == []
    assert timed == []


def test_a_short_run_times_bf16_alone(timed: list[Timed]) -> None:
    assert said(thorough=False, compile=True, fuse=8, size=8) == []
    assert timed == []
    assert len(said(thorough=False, precision="bf16")) == 1


def test_what_is_faster_or_as_fast_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_settings, "images_per_s", lambda config, *_: 960 if config.train.compile else 1000)
    assert said(compile=True) == []


@pytest.mark.usefixtures("timed")
def test_check_says_it_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(Config(arch=Arch(name="cnn"), train=Train(seeds="0-3", precision="bf16")))
    check([config], seed_losses=lambda *_: None)
    assert "slower      --precision bf16 trains 0.50 times" in capsys.readouterr().out

    def no_data(*_: object) -> float:
        raise ValueError("no usable MNIST")

    monkeypatch.setattr(slow_settings, "images_per_s", no_data)
    assert check([config], seed_losses=lambda *_: None) == 0
    assert "slower      not known, nothing can be timed: no usable MNIST" in capsys.readouterr().out


def test_check_times_with_the_threads_that_a_training_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads beside a busy program wait for each other, and every setting seems slow."""
    threads: list[int] = []

    def measure(*_: object) -> float:
        threads.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(slow_settings, "images_per_s", measure)
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    monkeypatch.setattr(Neighbours, "busy_cores", lambda _: 3)
    config = resolve(Config(arch=Arch(name="cnn"), train=Train(precision="bf16")))
    check([config], seed_losses=lambda *_: None)
    assert threads == [1, 1]


@pytest.mark.slow
def test_fp32_is_timed_without_the_autocast_of_this_process() -> None:
    """In a process for bf16 the network of a trial of fp32 must not run in bf16."""
    seen: list[torch.dtype] = []

    def losses(config: Config, forward: torch.nn.Module, batch: Any, clock: torch.Tensor) -> tuple:
        x = torch.ones(2, 2, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(t.dtype), t)[1], lambda t: t):
            out = forward(batch.x_SBCHW, clock, batch.row_B)
        return out.sum((1, 2)) + x.sum(), out

    config = resolve(Config(arch=Arch(name="cnn"), train=Train(precision="bf16", steps=9)))
    runtime = Runtime(config, 2)
    found = {}
    for precision in ("bf16", "fp32"):
        seen.clear()
        train = config.train.model_copy(update={"precision": precision})
        slow_settings.images_per_s(config.model_copy(update={"train": train}), 2, runtime, losses)
        found[precision] = torch.bfloat16 in seen
    assert found == {"bf16": True, "fp32": False}
