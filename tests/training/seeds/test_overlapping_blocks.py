"""Blocks of an experiment that share seeds, as after an edit of a sweep's seeds: only one is trained at a time."""

from pathlib import Path
from threading import Thread

import pytest
import torch

from stn.commands import unfinished
from stn.config.schema import Config
from stn.runs.directory import RunDir
from stn.runs.trials import Trial
from stn.training.checkpoints import SeedCheckpoint, save_seed
from stn.training.runtime import Runtime
from tests.support.seeds import config, trials


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "PATIENCE_S", 1.0)


def lock(folder: Path, seeds: str) -> list[Trial]:
    return unfinished.lock_unfinished(Runtime(Config(), 1), trials(folder, config(seeds=seeds)))


def test_a_seed_that_is_in_training_in_another_block_is_not_trained_beside_it(tmp_path: Path) -> None:
    eight = lock(tmp_path, "0-7")
    refused = trials(tmp_path, config(seeds="0-3"))
    with pytest.raises(OSError, match=r"another process .* is training .*/0-7$"):
        unfinished.lock_unfinished(Runtime(Config(), 1), refused)
    assert refused[0].run.lease.token == 0, "no failure is recorded, and others need not wait"
    assert not refused[0].run.lease.is_live()
    assert len(lock(tmp_path, "8-9")) == 2
    eight[0].run.add_results([{"seed": seed, "sig": eight[0].sig, "status": "finished"} for seed in range(4)])
    assert lock(tmp_path, "0-3") == [], "they have their results"
    eight[0].run.lease.release()
    assert [trial.seed for trial in lock(tmp_path, "3-5")] == [4, 5]


def test_a_block_of_many_seeds_whose_name_is_a_hash_counts(tmp_path: Path) -> None:
    many = ",".join(map(str, range(0, 120, 2)))
    sixty = lock(tmp_path, many)
    assert sixty[0].run.seeds is None
    with pytest.raises(OSError, match=r"another process .* is training"):
        lock(tmp_path, "0-3")
    assert len(lock(tmp_path, "121")) == 1
    sixty[0].run.config.write_text("damaged")
    assert len(lock(tmp_path, "0-3")) == 4


def test_of_two_that_start_at_once_the_first_by_name_goes_on(tmp_path: Path) -> None:
    runs = [trials(tmp_path, config(seeds=seeds))[0].run for seeds in ("0-3", "2-5")]
    for run in runs:
        run.path.mkdir(parents=True)
        run.lease.take(print)
    refused: list[RunDir] = []

    def look(run: RunDir) -> None:
        try:
            unfinished._wait_for_other_blocks(run, {2, 3})
        except OSError:
            refused.append(run)

    threads = [Thread(target=look, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == runs[1:]
    assert runs[0].lease.held()


def test_seeds_that_another_division_has_begun_are_said_to_begin_anew(tmp_path: Path, capsys) -> None:
    (first, *_) = lock(tmp_path, "0-3")
    for seed in (1, 2):
        save_seed(first.run, seed, 2, SeedCheckpoint({"w": torch.ones(2)}, {}, {}, {}), keep=2)
    first.run.lease.release()
    capsys.readouterr()
    (again, *_) = lock(tmp_path, "0-3")
    assert "begin anew" not in capsys.readouterr().out
    again.run.lease.release()
    (second, *_) = lock(tmp_path, "2-5")
    assert f"warning: seeds 2 begin anew, although {first.run.path} has checkpoints of them" in capsys.readouterr().out
    save_seed(second.run, 2, 2, SeedCheckpoint({"w": torch.ones(2)}, {}, {}, {}), keep=2)
    second.run.lease.release()
    lock(tmp_path, "2-5")
    assert "begin anew" not in capsys.readouterr().out


def test_a_start_says_on_what_it_trains(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate's settings of the machine, or a launcher, may have decided it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    (one, *_) = lock(tmp_path, "0-3")
    assert f"device    CPU, threads: {torch.get_num_threads()}, fp32\n" in capsys.readouterr().out
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    one.run.lease.release()
    lock(tmp_path, "0-3")
    assert "CPU (ACCELERATE_USE_CPU)" in capsys.readouterr().out
