"""The processes that draw: they draw what this one would, and a training does without them where they are gone."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe

import numpy as np
import psutil
import pytest

from stn.evaluation.pictures import figures, painter
from stn.evaluation.pictures.painter import PROCESSES, Painter
from stn.evaluation.pictures.plans import Confusion
from tests.support.machine import processes_with, wait_until
from tests.support.trainer import environment

PLAN = Confusion("two classes", np.array([[3.0, 1.0], [0.0, 4.0]]))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Painter, psutil.Process]]:
    monkeypatch.setattr(painter, "cores", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    one = Painter()
    one.start()
    assert one._process
    yield one, psutil.Process(one._process.pid)
    one.end()


@pytest.fixture
def by_itself(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets an entry for each picture that this process draws."""
    drawn: list[int] = []
    usual = figures.png
    monkeypatch.setattr(figures, "png", lambda plan: drawn.append(1) or usual(plan))
    return drawn


def test_the_process_draws_what_this_one_would(started: tuple[Painter, psutil.Process], by_itself: list[int]) -> None:
    pictures = [started[0].paint(PLAN), started[0].paint(PLAN)]
    assert by_itself == []
    assert pictures == [figures.png(PLAN)] * 2


def test_the_process_imports_no_torch(started: tuple[Painter, psutil.Process]) -> None:
    started[0].paint(PLAN)
    libraries = {mapped.path for mapped in started[1].memory_maps()}
    assert any("matplotlib" in path for path in libraries)
    assert not any("libtorch" in path for path in libraries)


@pytest.mark.parametrize("how", ["killed", "hang", "broken plan"])
def test_without_the_processes_this_one_draws(
    how: str, started: tuple[Painter, psutil.Process], by_itself: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, process = started
    wait_until("both processes", lambda: len(process.children()) == PROCESSES - 1, 20)
    both = [process, *process.children()]
    if how == "broken plan":
        with pytest.raises(ValueError, match="axis 1 is out of bounds"):  # its own error, not the pipe's
            one.paint(PLAN._replace(mean_KK=np.zeros(3)))
        assert len(one._idle) == 1
        return
    for each in both:
        each.kill() if how == "killed" else each.suspend()
    if how == "hang":
        monkeypatch.setattr(painter, "MOST_S", 0.3)
    try:
        for _ in range(PROCESSES + 1):
            assert one.paint(PLAN) == figures.png(PLAN)
    finally:
        for each in both:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()
    assert len(by_itself) == 2 * (PROCESSES + 1)


def test_two_pictures_are_drawn_at_a_time(started: tuple[Painter, psutil.Process]) -> None:
    one, process = started
    with ThreadPoolExecutor(PROCESSES) as threads:
        pictures = list(threads.map(one.paint, [PLAN] * 8))
    assert pictures == [figures.png(PLAN)] * 8
    assert len(one._idle) == 1 + len(process.children()) == PROCESSES


@pytest.mark.parametrize(("cores", "ranks"), [(1, "1"), (2, "2")])
def test_no_process_where_there_is_no_core_for_it(cores: int, ranks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "cores", lambda: cores)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    one = Painter()
    one.start()
    assert one._process is None


def test_the_processes_leave_if_nobody_wants_them() -> None:
    ours, theirs = Pipe()
    code = "import sys; from stn.evaluation.pictures import painter as p; p.MOST_S = 0.1; p.serve([int(sys.argv[1])])"
    number = theirs.fileno()
    words = [sys.executable, "-c", code, str(number)]
    with subprocess.Popen(words, pass_fds=[number], env=environment()) as waiting, ours, theirs:
        assert waiting.wait(20) == 0


def test_the_processes_end_with_their_training() -> None:
    """However that is killed: nothing is sent to them then."""
    code = (
        "import time; from stn.evaluation.pictures import painter\n"
        "painter.cores = lambda: 2\n"
        "painter.PAINTER.start(); print(painter.PAINTER._process.pid, flush=True); time.sleep(60)"
    )
    mark = uuid.uuid4().hex
    kept = environment(PAINTER_TEST=mark)
    kept.pop("WORLD_SIZE", None)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=kept) as parent:
        wait_until("all processes", lambda: len(processes_with("PAINTER_TEST", mark)) == 1 + PROCESSES, 20)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until("the end of all processes", lambda: not processes_with("PAINTER_TEST", mark), 20)
