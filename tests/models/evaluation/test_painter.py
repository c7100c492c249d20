"""The processes that draw: they draw what this one would, and a training does without them where they are gone."""

import contextlib
import os
import pickle
import runpy
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from stn.commands import begin
from stn.config.dataset import build_dataset
from stn.data.stream import Stream
from stn.evaluation.pictures import draw, figures, painter
from stn.evaluation.pictures.painter import PROCESSES, Painter
from stn.evaluation.pictures.plans import Confusion, Sheet, Strip
from stn.evaluation.pictures.subject import Subject
from stn.models.build import build_network
from tests.support.machine import processes_with, wait_until
from tests.support.networks import config_of
from tests.support.paths import ROOT
from tests.support.trainer import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked: Linux only")
PLAN = Confusion("two classes", np.array([[3.0, 1.0], [0.0, 4.0]]))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Painter]:
    monkeypatch.setattr(painter, "cores", lambda: 2)
    monkeypatch.setattr(painter, "MOST_S", 1)  # of this process: of the others it is a minute
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    one = Painter()
    one.start()
    assert one._process
    yield one
    one.end()


def both(one: Painter) -> list[psutil.Process]:
    """Wait for the fork and return the processes, in the order of their connections."""
    assert one._process
    first = psutil.Process(one._process.pid)
    wait_until("both processes", lambda: len(first.children()) == PROCESSES - 1, 20)
    return [first, *first.children()]


@pytest.fixture
def by_itself(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets an entry for each picture that this process draws."""
    drawn: list[int] = []
    usual = figures.png
    monkeypatch.setattr(figures, "png", lambda plan: drawn.append(1) or usual(plan))
    return drawn


@pytest.mark.parametrize("which", range(PROCESSES))
def test_each_process_draws_what_this_one_would(which: int, started: Painter, by_itself: list[int]) -> None:
    processes = both(started)
    del started._idle[1 - which]
    pictures = [started.paint(PLAN), started.paint(PLAN)]
    assert by_itself == []
    assert pictures == [figures.png(PLAN)] * 2
    libraries = {mapped.path for mapped in processes[which].memory_maps()}
    assert any("matplotlib" in path for path in libraries)
    assert not any("libtorch" in path for path in libraries)


def test_plans_are_drawn_without_torch() -> None:
    config = config_of("stn_slx", "mnist_r", depth=(0, 1))
    stream = Stream(config.data, build_dataset("mnist_r"), [0])
    subject = Subject(build_network(config).eval(), stream, "", [0, 1], [])  # type: ignore[arg-type]
    plans = dict(draw._of_network(lambda: subject))
    assert plans.keys() == {"warp", "object", "iterations", "region", "pose"}
    assert [name for name, plan in plans.items() if b"torch" in pickle.dumps(plan)] == []
    assert b"torch" in pickle.dumps(torch.zeros(1))


@pytest.mark.parametrize(("which", "drawn_here"), [([0], 0), ([1], 1), ([0, 1], 4)])
def test_for_what_was_killed_this_one_draws(
    which: list[int], drawn_here: int, started: Painter, by_itself: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painter, "MOST_S", 100)  # of which none may pass
    for i, process in enumerate(both(started)):
        painter._limit(started._idle[i])
        if i in which:
            process.kill()
    begun = time.monotonic()
    pictures = [started.paint(PLAN) for _ in range(4)]
    assert len(by_itself) == drawn_here
    assert time.monotonic() - begun < 50
    assert pictures == [figures.png(PLAN)] * 4


def test_a_process_that_hangs_is_given_up(started: Painter, by_itself: list[int]) -> None:
    """While it takes a large plan, which fits into no buffer, and while it draws."""
    processes = both(started)
    large = Sheet("", [Strip("", [np.zeros((3, 300, 300))] * 2)])
    assert len(pickle.dumps(large)) > 1_000_000
    for process in processes:
        process.suspend()
    try:
        assert started.paint(large) == figures.png(large)
        assert started.paint(PLAN) == figures.png(PLAN)
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    assert started._idle == []
    assert len(by_itself) == 4


def test_an_error_is_the_pictures_own(started: Painter) -> None:
    with pytest.raises(ValueError, match="axis 1 is out of bounds"):
        started.paint(PLAN._replace(mean_KK=np.zeros(3)))
    assert len(started._idle) == 1


@pytest.mark.parametrize(("cores", "ranks"), [(1, "1"), (2, "2")])
def test_no_process_where_there_is_no_core_for_it(cores: int, ranks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "cores", lambda: cores)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    one = Painter()
    one.start()
    assert one._process is None


WORDS = [("", True, 1), ("", False, 0)]
WORDS += [(word, True, 0) for word in ("--log.no-pictures", "--check", "--train.threads 1")]


@pytest.mark.parametrize(("words", "draws", "expected"), WORDS)
def test_processes_are_started_where_there_is_something_to_draw(
    words: str, draws: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    monkeypatch.setattr(begin.PAINTER, "start", lambda: starts.append(1))
    begin.begin(words.split(), draws)
    assert len(starts) == expected


def test_an_import_of_the_loop_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    monkeypatch.setattr(begin.PAINTER, "start", lambda: starts.append(1))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    runpy.run_path(str(ROOT / "train.py"), run_name="loop")
    assert starts == []


def test_what_lies_in_the_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_itself: list[int]
) -> None:
    (tmp_path / "psutil.py").write_text("raise SystemExit(3)")
    (tmp_path / "stn.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(painter, "cores", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    one = Painter()
    one.start()
    one.paint(PLAN)
    one.end()
    assert by_itself == []


def test_the_processes_leave_if_nobody_wants_them() -> None:
    ours, theirs = zip(Pipe(), Pipe(), strict=True)
    code = "import sys; from stn.evaluation.pictures import painter; painter.MOST_S = 0.1; "
    code += "painter.serve([int(number) for number in sys.argv[1:]])"
    numbers = [end.fileno() for end in theirs]
    words = [sys.executable, "-c", code, *map(str, numbers)]
    with subprocess.Popen(words, pass_fds=numbers, env=environment()) as waiting:
        assert waiting.wait(20) == 0
    for end in (*ours, *theirs):
        end.close()


def test_the_processes_end_with_their_training() -> None:
    """However that is killed: nothing is sent to them then."""
    code = "import time; from stn.evaluation.pictures import painter; painter.cores = lambda: 2; "
    code += "painter.PAINTER.start(); time.sleep(60)"
    mark = uuid.uuid4().hex
    kept = environment(PAINTER_TEST=mark)
    kept.pop("WORLD_SIZE", None)
    found = partial(processes_with, "PAINTER_TEST", mark)
    with subprocess.Popen([sys.executable, "-c", code], env=kept) as parent:
        wait_until("all processes", lambda: len(found()) == 1 + PROCESSES, 20)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until("the end of all processes", lambda: not found(), 20)
