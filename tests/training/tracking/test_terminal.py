"""What a terminal shows of a training, at 80 columns: a bar that moves with every step, and a line per evaluation."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rich.console import Console

from stn.commands.finish import print_summary
from stn.config.resolve import resolve
from stn.config.schema import Config, Log
from stn.runs.directory import RunDir
from stn.runs.trials import Trial
from stn.tracking import console as tracking_console
from stn.tracking import log, terminal
from stn.tracking.terminal import ConsoleSink
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime
from tests.support.records import metric, result
from tests.support.trainer import QUICK, SMALL, command, environment

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terminal.time, "monotonic", clock.monotonic)
    return clock


def shown(sink: ConsoleSink) -> list[str]:
    """Return what has been printed, a string per line and draw, and forget it."""
    out = sink.console.file
    assert isinstance(out, io.StringIO)
    lines = [ANSI.sub("", line) for line in out.getvalue().replace("\r", "\n").splitlines()]
    out.seek(0)
    out.truncate()
    return [line for line in lines if line.strip()]


def opened(label: str = "stn_slx mnist seed 3", steps: int = 1000, start: int = 0, earlier=()) -> ConsoleSink:
    return ConsoleSink(Console(file=io.StringIO(), force_terminal=True, width=80), label, steps, start, earlier)


def evaluation(step: int, acc: float, seed: int = 3) -> dict:
    return metric(seed, step, "eval", test_acc=acc, test_loss=0.5)


def test_the_bar_moves_with_every_step_and_is_drawn_twice_a_second_at_most(clock: Clock) -> None:
    sink, peeked = opened(), []

    def peek() -> tuple[float, float]:
        peeked.append(clock.now)
        return 2.0 / len(peeked), len(peeked) / 100

    shown(sink)
    for step in range(1, 81):  # ten seconds, eight steps in each
        sink.advance(step, step / 100, 128, peek)
        clock.now += 0.125
    assert len(peeked) == 20
    text = "\n".join(shown(sink))
    assert sink.bar.tasks[0].completed in range(77, 81)
    assert "1,024 images/s" in text
    assert "epoch 0.01  loss 2.0000  train acc 1.00%" in text
    assert f"loss {2 / len(peeked):.4f}  train acc {len(peeked)}.00%" in text
    assert "  7%" in text
    sink.close([])


def test_test_accuracy_is_on_the_screen_after_each_evaluation(clock: Clock) -> None:
    sink = opened()
    assert shown(sink)[0] == "stn_slx mnist seed 3"
    for step, acc, best in ((100, 0.5, 0.5), (200, 0.9, 0.9), (300, 0.7, 0.9)):
        sink.write([evaluation(step, acc)])
        lines = shown(sink)
        line = f"epoch {step / 10:.2f}  step {step}/1000  test acc {acc:.2%}  best {best:.2%}  test loss 0.5000"
        assert line in lines
        assert any(f"test acc {acc:.2%}  best {best:.2%}" in line and "step" not in line for line in lines)  # the bar
        sink.write([metric(3, step, loss=0.25, acc=0.8, images_per_s=10_000.0)])
        assert any("loss 0.2500  train acc 80.00%" in line for line in shown(sink))


def test_a_resumed_run_knows_its_best_evaluation(clock: Clock) -> None:
    sink = opened(start=200, earlier=[[evaluation(100, 0.9)], [evaluation(200, 0.6), evaluation(200, 0.8, seed=4)]])
    shown(sink)
    sink.advance(201, 1.0, 128, lambda: None)
    assert any("test acc 70.00%  best 90.00%" in line for line in shown(sink))


def test_the_log_finds_earlier_evaluations_of_its_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "0123456789ab" / "3-4")
    run.add_metrics([evaluation(100, 0.9), evaluation(200, 0.6), evaluation(200, 0.8, seed=4), metric(3, 200)])
    run.close_metrics()
    trial = Trial(resolve(Config()), "0123456789ab", 3, run)
    monkeypatch.setattr(log, "console", Console(file=io.StringIO(), force_terminal=True, width=80))
    assert log._console_sink([trial, trial._replace(seed=4)], 200, []).accuracies == pytest.approx([0.9, 0.7])
    assert log._console_sink([trial, trial._replace(seed=4)], 0, []).accuracies == []


def test_the_log_passes_on_that_a_step_was_made(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=out, force_terminal=True, width=80))
    config = resolve(Config(log=Log(wandb="disabled")))
    with log.Log([Trial(config, "0123456789ab", 3, RunDir(tmp_path / "3"))], 0, writes=True) as opened_log:
        opened_log.advance(1, 0.25, 128, lambda: (1.5, 0.5))
    assert "epoch 0.25  loss 1.5000  train acc 50.00%" in out.getvalue()


def test_a_training_in_a_terminal_of_80_columns(tmp_path: Path) -> None:
    words = command("--steps", 12, "--eval.every", "6 steps", *QUICK, *SMALL, runs=tmp_path)
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {key: value for key, value in environment(TERM="xterm").items() if key != "COLUMNS"}
    process = subprocess.Popen(words, stdin=child, stdout=child, stderr=child, env=env, cwd=tmp_path, close_fds=True)
    os.close(child)
    content = b""
    with suppress(OSError):  # the terminal has no other end any more
        while part := os.read(parent, 1 << 16):
            content += part
    assert process.wait() == 0, content.decode()
    lines = [ANSI.sub("", line) for line in content.decode().replace("\r", "\n").splitlines()]
    lines = [line for line in lines if line.strip()]
    assert len([s for s in lines if re.match(r"epoch \S+  step (6|12)/12  test acc .*  best .*  test loss", s)]) == 2
    assert any(line.startswith("epoch") and "train acc" in line for line in lines)
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []
    assert lines[-1].startswith("compare   python -m launch report ")


@pytest.mark.parametrize(
    "label", ["stn_slx mnist seed 3", "stn_c0_coord cifar10_mismatched seed 0,3,8-15 x 12 settings"]
)
def test_no_line_is_wider_than_the_terminal(label: str, clock: Clock) -> None:
    sink = opened(label, steps=1_000_000)
    for step in (70_000, 700_000):
        for _ in range(3):
            clock.now += 1
            sink.advance(step, 1234.56, 10**6, lambda: (123.4567, 1.0))
        sink.write([metric(3, step, loss=123.4567, acc=1.0, images_per_s=123_456.0) | {"epoch": 1234.56}])
        sink.write([evaluation(step, 1.0) | {"epoch": 1234.56, "test_loss": 123.4567}])
    lines = shown(sink)
    assert max(map(len, lines)) <= 80
    assert any("images/s" in line for line in lines)
    assert any("test acc 100.00%" in line for line in lines)


def test_a_file_has_plain_lines(clock: Clock) -> None:
    sink = ConsoleSink(Console(file=io.StringIO(), force_terminal=False, width=160), "stn_slx mnist seed 3", 1000, 0)
    sink.advance(1, 0.1, 128, lambda: (1.0, 0.5))
    for step in (1, 2):
        sink.write([metric(3, step, loss=0.25, acc=0.8, images_per_s=10_000.0)])
    sink.write([evaluation(2, 0.9)])
    assert shown(sink) == [
        "stn_slx mnist seed 3  epoch 0.10  step 1/1000  loss 0.2500  train acc 80.00%  10,000 images/s",
        "stn_slx mnist seed 3  epoch 0.20  step 2/1000  test acc 90.00%  best 90.00%  test loss 0.5000",
    ]


def test_a_glance_at_the_metrics_is_free() -> None:
    runtime = Runtime(resolve(Config()), 1)
    metrics = RunningMetrics([0, 1], runtime, "test")
    assert metrics.peek() is None
    for loss in (1.0, 2.0):
        metrics.add(torch.zeros((), dtype=torch.int64), torch.tensor([loss, loss + 2]), torch.tensor([0.5, 1.0]))
    assert metrics.peek() == (2.5, 0.75)
    metrics._sums_NS = metrics._sums_NS.to("meta")  # as a GPU's: its values cannot be read without a sync
    assert metrics.peek() is None


def test_the_last_lines_say_what_to_type_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(tracking_console, "console", Console(file=out, width=80))
    monkeypatch.chdir(tmp_path)
    run = RunDir(Path("runs", "my name", "0123456789ab", "3"))
    run.add_results([result(3)])
    print_summary([result(3)], [run, run])
    assert out.getvalue().splitlines()[-1] == "compare   python -m launch report 'runs/my name'"
    (run.path / "wandb" / "offline-run-1-abc").mkdir(parents=True)
    print_summary([result(3)], [run])
    assert out.getvalue().splitlines()[-1] == "upload    python -m launch wandb-sync 'runs/my name'"
