"""The process that draws: it draws what this one would, and a training does without it where it is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from stn.evaluation.pictures import figures, painter
from stn.evaluation.pictures.painter import Painter
from stn.evaluation.pictures.plans import Confusion
from tests.support.machine import wait_until
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


@pytest.mark.parametrize("how", ["killed", "hangs", "broken plan"])
def test_without_the_process_this_one_draws(
    how: str, started: tuple[Painter, psutil.Process], by_itself: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, process = started
    if how == "killed":
        process.kill()
    elif how == "hangs":
        process.suspend()
        monkeypatch.setattr(painter, "MOST_S", 0.3)
    plan = PLAN._replace(mean_KK=np.zeros(3)) if how == "broken plan" else PLAN
    if how == "broken plan":
        with pytest.raises(ValueError, match="axis 1 is out of bounds"):  # its own error, not the pipe's
            one.paint(plan)
    else:
        assert one.paint(plan) == figures.png(PLAN)
    assert by_itself
    assert not process.is_running()


@pytest.mark.parametrize(("cores", "ranks"), [(1, "1"), (2, "2")])
def test_no_process_where_there_is_no_core_for_it(cores: int, ranks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "cores", lambda: cores)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    one = Painter()
    one.start()
    assert one._process is None


def test_the_process_leaves_if_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from stn.evaluation.pictures import painter; painter.MOST_S = float(sys.argv[1]); painter.serve()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, "0.1"], stdin=pipe, stdout=pipe, env=environment()) as waiting:
        assert waiting.wait(20) == 0


def test_the_process_ends_with_its_training() -> None:
    """However that is killed: nothing is sent to the process then."""
    code = (
        "import time; from stn.evaluation.pictures import painter\n"
        "painter.cores = lambda: 2\n"
        "painter.PAINTER.start(); print(painter.PAINTER._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment()) as parent:
        assert parent.stdout
        process = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        wait_until("the end of the process", lambda: not process.is_running(), 20)
