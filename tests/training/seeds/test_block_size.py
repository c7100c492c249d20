"""How many seeds a GPU trains as one network: found by trial, said, and kept by a run that resumes."""

import json
from pathlib import Path

import pytest
import torch

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Log, Train
from stn.runs.trials import Trial, build_trials
from stn.training import block_size, blocks
from stn.training.block_size import fastest_size
from stn.training.runtime import Runtime


def trials(folder: Path, seeds: str = "0-39") -> list[Trial]:
    return build_trials([resolve(Config(arch=Arch(name="cnn"), train=Train(seeds=seeds), log=Log(runs=str(folder))))])


def pretend(monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float]) -> list[int]:
    tried: list[int] = []

    def measure(config: Config, size: int, *_: object) -> float:
        tried.append(size)
        if size not in speeds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return speeds[size]

    monkeypatch.setattr(block_size, "_images_per_s", measure)
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
    assert fastest_size(Config(), most, Runtime(Config(), 1), lambda *_: None) == best
    assert asked == tried
    assert f"{best} seeds as one network (images/s by number of seeds: " in capsys.readouterr().out


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
    monkeypatch.setattr(blocks, "MOST", {"cuda": 3})  # on a smaller device
    assert blocks.choose_block_size(trials(tmp_path), runtime, lambda *_: None) == 3
    some[0].run.env.write_text("damaged")
    assert blocks.choose_block_size(trials(tmp_path), runtime, lambda *_: None) == 2
    some[0].run.lease.release()
