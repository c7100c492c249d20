"""With several processes the main one's terminal shows all of them, from their run directories."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from stn.config.resolve import resolve
from stn.config.schema import Config, Log, Optim, Train
from stn.config.seed_list import format_seeds
from stn.runs.trials import Trial, build_trials, group_by_run
from stn.tracking import log, terminal
from stn.tracking.processes import process_lines
from stn.training.runtime import Runtime
from tests.support.records import metric, result


def configs(runs: Path, seeds: str = "0-3", lrs: tuple[float, ...] = (0.1,)) -> list[Config]:
    some = Config(train=Train(seeds=seeds), log=Log(runs=str(runs), name="ours"))
    return [resolve(some.model_copy(update={"optim": Optim(lr=lr)})) for lr in lrs]


def shares_of(runs: Path, processes: int, **more: object) -> list[list[Trial]]:
    return [build_trials(configs(runs, **more), part, processes) for part in range(processes)]  # type: ignore[arg-type]


def start(trials: list[Trial], step: int, **row: object) -> None:
    """Write what a process has written after so many steps of its current block."""
    run = trials[0].run
    run.write_status("running", seeds=format_seeds([trial.seed for trial in trials]), step=0, steps=1000)
    for trial in trials:
        loss = 1.0 + trial.seed
        run.add_metrics([metric(trial.seed, step, loss=loss, acc=0.5, images_per_s=2000.0) | row])
    run.close_metrics()


def finish(trials: list[Trial]) -> None:
    for group in group_by_run(trials):
        group[0].run.add_results([result(trial.seed) for trial in group])
        group[0].run.write_status("finished")


def test_all_processes_are_one_picture(tmp_path: Path) -> None:
    shares = shares_of(tmp_path, 2)
    assert process_lines(shares) == [
        "0 of 4 seeds done, 0 in training in 2 processes, 0 images/s",
        "process 1: starting",
    ]
    start(shares[0], 190)
    start(shares[1], 200)
    shares[1][0].run.add_metrics([metric(seed, 200, "eval", test_acc=0.9 + seed / 100) for seed in (2, 3)])
    assert process_lines(shares) == [
        "0 of 4 seeds done, 4 in training in 2 processes, 4,000 images/s",
        "process 1: seed 2-3  step 200/1,000  loss 3.5000  test acc 92.50%",
    ]
    finish(shares[1])
    assert process_lines(shares) == [
        "2 of 4 seeds done, 2 in training in 2 processes, 2,000 images/s",
        "process 1: done",
    ]


def test_a_new_block_of_seeds_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    shares = shares_of(tmp_path, 2, seeds="0-7")
    start(shares[1][:2], 1000)
    shares[1][0].run.add_results([result(4), result(5)])
    assert process_lines(shares)[0].startswith("2 of 8 seeds done, 0 in training")
    shares[1][0].run.write_status("running", seeds="6-7", step=0, steps=1000)
    assert process_lines(shares) == [
        "2 of 8 seeds done, 2 in training in 2 processes, 0 images/s",
        "process 1: seed 6-7  step 0/1,000",
    ]


def test_settings_of_other_processes_are_counted(tmp_path: Path) -> None:
    """Two learning rates over three processes: the first trains one of them alone."""
    shares = shares_of(tmp_path, 3, seeds="0-2", lrs=(0.1, 0.2))
    start(shares[1][1:], 30)
    finish(shares[2])
    lines = process_lines(shares)
    assert lines[0].startswith("2 of 6 seeds done, 1 in training in 3 processes")
    assert lines[1].startswith("process 1: seed 0  step 30/1,000")
    assert lines[2] == "process 2: done"


def test_many_processes_are_counted_after_the_first(tmp_path: Path) -> None:
    lines = process_lines(shares_of(tmp_path, 8, seeds="0-15"))
    assert [line.split(":")[0] for line in lines[1:-1]] == [f"process {n}" for n in (1, 2, 3, 4)]
    assert lines[-1] == "and 3 more processes"


def test_damaged_files_of_another_process_are_a_process_that_starts(tmp_path: Path) -> None:
    shares = shares_of(tmp_path, 2)
    start(shares[1], 200)
    run = shares[1][0].run
    run.metrics.write_text('{"kind": "train", "seed"\nnot json\n')
    assert process_lines(shares)[1] == "process 1: seed 2-3  step 0/1,000"
    run.status.write_text("{")
    assert process_lines(shares)[1] == "process 1: starting"


def opened(
    monkeypatch: pytest.MonkeyPatch, shares: list[list[Trial]], now: list[float]
) -> tuple[terminal.ConsoleSink, io.StringIO]:
    out = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=out, force_terminal=True, width=80))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return log._console_sink(shares[0], 0, shares), out


def test_the_bar_has_it_below_and_looks_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, shares = [100.0], shares_of(tmp_path, 2)
    sink, out = opened(monkeypatch, shares, now)
    seen = []
    for passed_s in (1, 4.5, 1):
        sink.advance(1, 0.1, 128, lambda: None)
        seen.append(sink.bar.tasks[0].fields["command"])
        finish(shares[1])
        now[0] += passed_s
    assert [lines[0].split(",")[0] for lines in seen] == [f"{n} of 4 seeds done" for n in (0, 0, 2)]
    assert seen[0][1] == "process 1: starting"
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert all(line in text.splitlines() for line in seen[2]), text
    assert max(map(len, text.replace("\r", "\n").splitlines())) <= 80


def test_alone_there_is_no_picture_and_blocks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = shares_of(tmp_path, 1, seeds="7")
    sink, _ = opened(monkeypatch, alone, [100.0])
    sink.advance(1, 0.1, 128, lambda: None)
    assert sink.bar.tasks[0].fields["command"] == []
    (both,) = shares_of(tmp_path, 1)
    sink = log._console_sink(both[:2], 0, [both])
    sink.advance(1, 0.1, 128, lambda: None)
    assert sink.bar.tasks[0].fields["command"] == ["0 of 4 seeds done"]


def test_a_runtime_knows_what_each_process_trains(tmp_path: Path) -> None:
    ours = configs(tmp_path)
    assert [[trial.seed for trial in share] for share in Runtime(ours[0], 4, ours).shares] == [[0, 1, 2, 3]]
