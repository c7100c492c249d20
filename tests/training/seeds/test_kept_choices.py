"""What a run that resumes keeps: the ways and sizes that were timed for it, and where it was trained before."""

import json
from pathlib import Path

import pytest

from launch.report.analysis.cells import load
from launch.report.provenance.environments import distinct, environments
from tests.support.trainer import SMALL, only_run, train, train_with

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


@pytest.mark.slow
def test_a_run_that_resumes_elsewhere_keeps_where_it_was_before(tmp_path: Path) -> None:
    words = ("--steps", 12, "--checkpoint.every", "5 steps", *SMALL)
    assert train(*words, "--train.time-limit", "1e-6", runs=tmp_path).returncode == 0
    file = only_run(tmp_path).path / "env.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"device": "cuda", "device_name": "NVIDIA H200"}))
    for _ in range(2):  # a stop at the same place adds nothing
        assert train(*words, "--train.time-limit", "1e-6", runs=tmp_path).returncode == 0
    assert train(*words, runs=tmp_path).returncode == 0
    resumed = json.loads(file.read_text())
    assert [stage["device_name"] for stage in resumed["earlier"]] == ["NVIDIA H200"]
    assert resumed["earlier"][0]["commit"] == facts["commit"]
    assert resumed["device"] == "cpu"
    cells = load([str(tmp_path)]).cells
    assert distinct(environment.device for environment in environments(cells)) == ["NVIDIA H200", "cpu"]
