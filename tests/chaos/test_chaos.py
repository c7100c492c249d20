"""The short form of the campaign, and that it notices what it should."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tests.chaos.crashes import torn
from tests.chaos.operations import watch
from tests.chaos.outcome import SECRETS, Outcome, leaks
from tests.chaos.victim import WORDS, faults_after
from tests.support.machine import processes_with, wait_until
from tests.support.paths import ROOT
from tests.support.trainer import environment, train


@pytest.mark.slow
@pytest.mark.timeout(1000)  # above the command's own limit, whose end says more
def test_nothing_is_lost_doubled_or_different() -> None:
    command = [sys.executable, "-m", "tests.chaos"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copies", "ranks"])
def test_nothing_trains_on_after_an_interrupt(kind: str) -> None:
    mark = uuid.uuid4().hex
    words = [sys.executable, "-m", "tests.chaos", "--only", kind]
    process = subprocess.Popen(words, cwd=ROOT, env=environment(CHAOS_TEST=mark), stdout=subprocess.DEVNULL)
    wait_until("a training and a worker", lambda: len(processes_with("CHAOS_TEST", mark)) >= 4, 100)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    wait_until("the end of all processes", lambda: not processes_with("CHAOS_TEST", mark), 10)


ROWS = [{"seed": 0, "test_acc": 0.5, "weights_sha256": "a"}, {"seed": 1, "test_acc": 0.6, "weights_sha256": "b"}]


def outcome(**changes: Any) -> Outcome:
    whole = {"results": ROWS, "metrics": [{"step": 1}, {"step": 2}], "files": ["a", "b"], "weights": {0: "a", 1: "b"}}
    return Outcome(**(whole | changes))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"results": ROWS[:1]}, "rows lost: [1]"),
        ({"results": [ROWS[0], *ROWS]}, "rows doubled"),
        ({"results": [ROWS[0], ROWS[1] | {"test_acc": 0.7}]}, "rows differ"),
        ({"weights": {0: "a", 1: "damaged"}}, "weights are not those of the rows: [1]"),
        ({"weights": {0: "a"}}, "weights are not those of the rows: [1]"),
        ({"leaks": ["env.json"]}, "a secret in env.json"),
        ({"log": "Traceback (most recent call last):"}, "a traceback"),
        ({"metrics": [{"step": 1}]}, "1 rows of metrics instead of 2"),
        ({"metrics": [{"step": 1}, {"step": 3}]}, "metrics differ"),
        ({"files": ["a", "b", ".x.tmp"]}, "left over: .x.tmp"),
        ({"files": ["a"]}, "missing: b"),
    ],
)
def test_each_kind_of_fault_is_noticed(changes: dict, fault: str) -> None:
    assert fault in outcome(**changes).faults(outcome())
    assert outcome().faults(outcome()) == []


def test_an_outcome_is_read_without_clocks(tmp_path: Path) -> None:
    run = tmp_path / "name" / "sig" / "0"
    run.mkdir(parents=True)
    (run / "results.jsonl").write_text('{"seed": 0, "wall_s": 3.0, "images_per_s": 5.0, "test_acc": 0.5}\n')
    (run / "metrics.jsonl").write_text('{"step": 1, "images_per_s": 7.0}\n')
    assert Outcome.read(tmp_path) == Outcome(
        [{"seed": 0, "test_acc": 0.5}], [{"step": 1}], ["metrics.jsonl", "results.jsonl"]
    )


def test_a_secret_is_noticed_in_any_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.bin").write_bytes(b"\0" + SECRETS["HF_TOKEN"].encode())
    (tmp_path / "b").write_text("nothing")
    assert leaks(tmp_path) == ["a.bin"]


@pytest.mark.slow
def test_no_key_of_the_environment_is_written(tmp_path: Path) -> None:
    """By any sink, W&B's own files included."""
    words = [word for word in WORDS if word not in ("--log.wandb", "disabled")]
    done = train(*words, "--log.wandb", "offline", "--log.tensorboard", runs=tmp_path, **SECRETS)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*.wandb"))
    assert leaks(tmp_path) == []


def test_a_torn_file_is_noticed_unless_it_is_metrics_or_temporary(tmp_path: Path) -> None:
    whole = save({"w": torch.ones(3)})
    contents = {"status.json": b"{}\n", "a.safetensors": whole, "metrics.jsonl": b'{"se', ".x.tmp": b"{"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert torn(tmp_path) == []
    for name in ("status.json", "a.safetensors"):
        (tmp_path / name).write_bytes(contents[name][:-1])
    assert sorted(torn(tmp_path)) == ["torn: a.safetensors", "torn: status.json"]


def test_what_is_of_one_seed_is_told_apart() -> None:
    both = outcome(metrics=[{"seed": 0, "step": 1}, {"seed": 1, "step": 1}])
    assert (both.of(1).results, both.of(1).metrics) == (ROWS[1:], [{"seed": 1, "step": 1}])
    changed = outcome(results=[ROWS[0] | {"test_acc": 0.9}, ROWS[1]], metrics=both.metrics)
    assert changed.of(1).faults(both.of(1)) == []
    assert changed.of(0).faults(both.of(0)) == ["rows differ"]


def test_an_exit_code_and_a_process_that_is_left_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "name" / "sig" / "0").mkdir(parents=True)
    nothing = Outcome([], [], [])
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        found = faults_after(tmp_path, nothing, 1, process.pid)
        assert found == ["exit code 1", f"processes left: {[process.pid]}"]
    finally:
        process.kill()
        process.wait()
    assert faults_after(tmp_path, nothing, 0, process.pid) == []


def test_every_operation_below_a_folder_is_seen_and_can_fail(tmp_path: Path) -> None:
    """In a process of its own: the calls of ``os`` are replaced for good."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _operate(tmp_path)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "in" / "torn").read_text() == "ab"


def _operate(folder: Path) -> None:
    seen: list[str] = []

    def act(name: str, path: Path, write_part) -> None:
        seen.append(f"{name} {path.name}")
        if path.name == "torn" and name == "write":
            write_part(0.5)
            raise OSError("full")

    inside = folder / "in"
    watch(inside, act)
    inside.mkdir()
    (folder / "outside").write_text("x")
    with (inside / "a").open("w") as file:
        file.write("text")
        file.flush()
        os.fsync(file.fileno())
    os.link(inside / "a", inside / "b")
    (inside / "b").replace(inside / "c")
    (inside / "c").rename(inside / "d")
    (inside / "d").unlink()
    with open(os.open(inside / "a", os.O_WRONLY), "w") as file:  # noqa: PTH123
        file.write("by its number")
    with pytest.raises(OSError, match="full"):
        (inside / "torn").write_text("abcd")
    assert (inside / "a").read_text() == "by its number"
    expected = [
        "mkdir in",
        "write a",
        "fsync a",
        "link a",
        "replace b",
        "rename c",
        "unlink d",
        "write a",
        "write torn",
    ]
    assert seen == expected, seen
