"""How many seeds train as one network: found by trial, said, and kept by a run that resumes."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Log, Train
from stn.data.stream import Batch, Stream
from stn.runs.trials import Trial, build_trials
from stn.training import block_size, blocks
from stn.training.block_size import doublings, fastest_size
from stn.training.runtime import Runtime


def trials(folder: Path, seeds: str = "0-39", **settings: Any) -> list[Trial]:
    train = Train(seeds=seeds, **settings)
    return build_trials([resolve(Config(arch=Arch(name="cnn"), train=train, log=Log(runs=str(folder))))])


def pretend(monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float]) -> list[int]:
    tried: list[int] = []

    def measure(config: Config, size: int, *_: object) -> float:
        tried.append(size)
        if size not in speeds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return speeds[size]

    monkeypatch.setattr(block_size, "images_per_s", measure)
    return tried


@pytest.mark.parametrize(
    ("speeds", "most", "best", "tried"),
    [
        ({1: 100, 2: 190, 4: 300, 8: 310, 16: 900}, 64, 8, [1, 2, 4, 8]),
        ({1: 100, 2: 190, 4: 300, 8: 290}, 64, 4, [1, 2, 4, 8]),
        ({}, 64, 1, [1]),
        ({1: 100, 2: 190, 4: 300, 5: 400}, 5, 5, [1, 2, 4, 5]),
        ({1: 100, 2: 190}, 64, 2, [1, 2, 4]),
        ({1: 100, 2: 50}, 64, 1, [1, 2]),
    ],
)
def test_seeds_double_until_speed_memory_or_the_bound_ends_it(
    speeds: dict[int, float],
    most: int,
    best: int,
    tried: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = pretend(monkeypatch, speeds)
    assert fastest_size(Config(), doublings(most), Runtime(Config(), 1), lambda *_: None) == best
    assert asked == tried
    chosen = f"{best} seeds as one network" if best > 1 else "one seed at a time"
    assert f"{chosen} (images/s by number of seeds: " in capsys.readouterr().out


def test_a_run_that_resumes_keeps_what_the_trial_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(Config(), 1)
    monkeypatch.setattr(runtime, "device", torch.device("cuda"))
    monkeypatch.setattr(blocks, "free_bytes", lambda device: 10**11)
    checked = blocks.check_network(resolve(Config(arch=Arch(name="cnn"))))
    monkeypatch.setattr(blocks, "check_network", lambda config: checked)
    asked = pretend(monkeypatch, {1: 1.0, 2: 2.0, 4: 4.0, 8: 4.0})
    some = trials(tmp_path)
    some[0].run.path.mkdir(parents=True)
    some[0].run.lease.take(print)
    assert blocks.choose_block_size(some, runtime, lambda *_: None) == 4
    assert json.loads(some[0].run.env.read_text())[blocks.FUSED] == 4
    asked.clear()
    assert blocks.choose_block_size(trials(tmp_path), runtime, lambda *_: None) == 4
    assert not asked
    monkeypatch.setattr(blocks, "_fit_in_memory", lambda *_: 3)  # on a smaller device
    assert blocks.choose_block_size(trials(tmp_path), runtime, lambda *_: None) == 3
    some[0].run.env.write_text("damaged")
    assert blocks.choose_block_size(some, runtime, lambda *_: None) == 2
    assert asked == [1, 2, 3]
    some[0].run.lease.release()


def long_enough(count: int = 40) -> int:
    """Return the steps from which so many seeds are worth a trial on a CPU."""
    return -(-blocks.WORTH_A_TRIAL // (count * Config().data.batch_size))


@pytest.mark.parametrize(("short_by", "size", "tried"), [(0, 16, [1, 2, 4, 8, 16]), (1, 4, [])])
def test_on_a_cpu_a_trial_is_for_long_runs(
    short_by: int, size: int, tried: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend(monkeypatch, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 8.1})
    some = trials(tmp_path, steps=long_enough() - short_by)
    some[0].run.path.mkdir(parents=True)
    some[0].run.lease.take(print)
    assert blocks.choose_block_size(some, Runtime(Config(), 1), lambda *_: None) == size
    assert asked == tried
    assert (json.loads(some[0].run.env.read_text()) == {blocks.FUSED: size}) if tried else not some[0].run.env.exists()
    some[0].run.lease.release()


def test_a_run_that_was_begun_without_a_trial_goes_on_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend(monkeypatch, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})
    monkeypatch.setattr(blocks.checkpoints, "saved_steps", lambda run, seed: {5})
    assert blocks.choose_block_size(trials(tmp_path, steps=long_enough()), Runtime(Config(), 1), lambda *_: None) == 4
    assert not asked


def test_what_must_not_depend_on_time_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend(monkeypatch, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})
    some = trials(tmp_path, steps=long_enough(), deterministic=True)
    assert blocks.choose_block_size(some, Runtime(Config(), 1), lambda *_: None) == 4
    assert not asked


@pytest.mark.parametrize("size", [1, 3])
def test_a_trial_times_the_step_that_train_py_runs(size: int) -> None:
    """The sum of what its losses saw: every step has a batch of every seed, and weights move."""
    seen: list[tuple[int, ...]] = []

    def losses(config: Config, forward: torch.nn.Module, batch: Batch, clock: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(tuple(batch.x_SBCHW.shape))
        out = forward(batch.x_SBCHW, clock, batch.row_B)
        return out.sum((1, 2)), out.detach().sum((1, 2))

    config = resolve(Config(arch=Arch(name="cnn"), data=Data(name="mnist", batch_size=8), train=Train(steps=5)))
    build_dataset("mnist").load(config.data.root)
    assert block_size.images_per_s(config, size, Runtime(config, 1), losses) > 0
    assert set(seen) == {(size, 8, 1, 28, 28)}
    assert len(seen) == 3, "a plain step, one recorded, one compared; the others are replayed"


def test_steps_of_a_large_network_are_timed_three_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU a trial lasts 0.3 s or three steps, whatever a step takes and however many images it has."""
    seconds = itertools.count(step=0.2)
    monkeypatch.setattr(block_size.time, "perf_counter", lambda: next(seconds))
    batches: list[int] = []

    class Counted(Stream):
        def seek(self, step: int) -> int:
            batches.append(step)
            return super().seek(step)

    monkeypatch.setattr(block_size, "Stream", Counted)

    def losses(config: Config, forward: Any, batch: Batch, clock: Tensor) -> tuple[Tensor]:
        return (forward(batch.x_SBCHW, clock, batch.row_B).square().mean().unsqueeze(0),)

    config = resolve(Config(arch=Arch(name="cnn"), data=Data(batch_size=50)))
    assert block_size.images_per_s(config, 1, Runtime(config, 1), losses) == pytest.approx(50 / 0.2)
    assert batches == list(range(3 + 3)), "a plain step, one recorded, one compared; then those that are timed"
