"""The end of a training on the terminal: one table of all processes' seeds, with mean, SD and n."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from stn.commands import finish
from stn.commands.finish import summarise
from stn.config import command_line
from stn.config.flags.launcher import silence_reducer
from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Log, Optim, Train
from stn.runs.trials import build_trials
from stn.tracking import console as tracking_console
from tests.support.records import result
from tests.support.trainer import QUICK, SMALL, train


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    console = Console(file=io.StringIO(), width=80)
    for module in (finish, tracking_console):
        monkeypatch.setattr(module, "console", console)
    assert isinstance(console.file, io.StringIO)
    return console.file


def config(runs: Path, lr: float = 0.1, seeds: str = "0-3") -> Config:
    return resolve(Config(train=Train(seeds=seeds), optim=Optim(lr=lr), log=Log(runs=str(runs), name="ours")))


def publish(config: Config, process: int, processes: int, **more: object) -> None:
    """Write the results of one process's share of the seeds."""
    for trial in build_trials([config], process, processes):
        row = result(trial.seed, sig=signature(config), lr=config.optim.lr, test_acc=0.9 + trial.seed / 100)
        trial.run.add_results([row | {"best_test_acc": 0.95} | more])


def test_the_table_has_the_seeds_of_all_processes(tmp_path: Path, out: io.StringIO) -> None:
    ours = config(tmp_path)
    publish(ours, 0, 2)
    publish(ours, 1, 2)
    assert summarise(1, [ours], None) == 1
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert [line[0] for line in lines if line[1:2] == ["finished"]] == ["0", "1", "2", "3"]
    assert ["mean", "n", "=", "4", "91.50%", "95.00%"] in lines
    assert ["SD", "n", "=", "4", "1.29%", "0.00%"] in lines
    folder = f"{tmp_path}/ours/{signature(ours)}"
    assert [line[1] for line in lines if line[:1] == ["results"]] == [
        f"{folder}/0-1/results.jsonl",
        f"{folder}/2-3/results.jsonl",
    ]
    assert lines[-1] == ["compare", "python", "-m", "launch", "report", f"{tmp_path}/ours"]


def test_settings_have_statistics_of_their_own_and_failed_seeds_none(tmp_path: Path, out: io.StringIO) -> None:
    both = [config(tmp_path, lr, "0-1") for lr in (0.1, 0.2)]
    publish(both[0], 0, 1)
    publish(both[1], 0, 1, status="failed", reason="non-finite loss at step 3", test_acc=None)
    summarise(1, both, None)
    lines = out.getvalue().splitlines()
    assert [re.split(r" {2,}", line.strip())[:3] for line in lines if "n = " in line] == [
        ["mean", "0.1", "n = 2"],
        ["SD", "0.1", "n = 2"],
    ]
    assert sum("failed: non-finite loss at step 3; rerun with a lower --lr" in " ".join(lines) for _ in [0]) == 1


def test_there_is_no_table_of_what_was_stopped_nor_from_other_processes(
    tmp_path: Path, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = config(tmp_path)
    publish(ours, 0, 2)
    assert summarise(0, [ours], "SIGTERM") == 0
    assert out.getvalue() == ""
    publish(ours, 1, 2)
    monkeypatch.setenv("RANK", "1")
    assert summarise(0, [ours], None) == 0
    assert out.getvalue() == ""
    monkeypatch.setenv("RANK", "0")
    assert summarise(0, [ours], "SIGTERM") == 0  # it came when all was done
    assert "4 seeds" in out.getvalue()


class Group:
    """Stands for a process among others."""

    def __init__(self, processes: int) -> None:
        self.processes, self.ended = processes, 0

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize(
    ("processes", "shares", "rank", "stopped", "says"),
    [
        (2, 1, "0", None, "waiting for the other processes: 2 of 4 seeds done\n"),
        (2, 2, "0", None, ""),
        (2, 1, "1", None, ""),
        (2, 1, "0", "SIGTERM", ""),
        (1, 1, "0", None, ""),
    ],
)
def test_the_main_process_says_what_it_waits_for(
    processes: int, shares: int, rank: str, stopped: str | None, says: str,
    tmp_path: Path, out: io.StringIO, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RANK", rank)
    ours, group = config(tmp_path), Group(processes)
    for process in range(shares):
        publish(ours, process, 2)
    finish.leave(group, [ours], stopped)  # type: ignore[arg-type]
    assert (out.getvalue(), group.ended) == (says, 1)


def test_the_reducer_is_silent_among_several_ranks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for environ, level in (({}, None), ({"WORLD_SIZE": "1"}, None), ({"WORLD_SIZE": "2"}, "ERROR")):
        silence_reducer(environ)
        assert environ.get("TORCH_CPP_LOG_LEVEL") == level
    asked = {"WORLD_SIZE": "2", "TORCH_CPP_LOG_LEVEL": "INFO"}
    silence_reducer(asked)
    assert asked["TORCH_CPP_LOG_LEVEL"] == "INFO"
    calls: list[object] = []
    monkeypatch.setattr(command_line, "silence_reducer", calls.append)
    command_line.parse([])
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["0", "0-1"])
def test_two_processes_end_with_one_table_and_no_warning(seeds: str, tmp_path: Path) -> None:
    done = train("--seeds", seeds, "--steps", 4, *QUICK, *SMALL, launcher="cpu2", runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "find_unused_parameters" not in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines if line[1:2] == ["finished"]] == (["0"] if seeds == "0" else ["0", "1"])
    assert ("mean" in [line[0] for line in lines if line]) == (seeds == "0-1")
