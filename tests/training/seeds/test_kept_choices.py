"""What was timed for a block is part of its checkpoints, so that a run that resumes computes as before."""

from pathlib import Path

import pytest

from tests.support.trainer import SMALL, train_with

WORDS = ("--steps", 12, "--checkpoint.every", "5 steps", "--seeds", "0-1", *SMALL)
TIMED_BEFORE = """
from stn.multiseed.convolution import Convolutions
from stn.runs.directory import RunDir
begin = Convolutions.__init__
def timed(self, *arguments):
    begin(self, *arguments)
    self.chosen["some shape"] = "loop"
Convolutions.__init__ = timed
def die(*_):
    raise KeyboardInterrupt
RunDir.add_results = die
"""
TOLD = """
import atexit, gc
from stn.multiseed.convolution import Convolutions
seen = []
begin = Convolutions.__init__
def keep(self, *arguments):
    begin(self, *arguments)
    seen.append(self)
Convolutions.__init__ = keep
atexit.register(lambda: print([choice.chosen for choice in seen if choice.chosen]))
"""


@pytest.mark.slow
def test_a_run_that_resumes_convolves_as_before(tmp_path: Path) -> None:
    assert train_with(TIMED_BEFORE, *WORDS, runs=tmp_path).returncode == 130
    done = train_with(TOLD, *WORDS, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes at step" in done.stdout
    assert "[{'some shape': 'loop'}]" in done.stdout
