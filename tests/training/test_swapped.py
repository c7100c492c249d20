"""A checkpoint of something else under the name of ours is refused: the run falls back and ends as if undisturbed."""

import shutil
from pathlib import Path

import pytest

from tests.chaos.outcome import Outcome
from tests.chaos.victim import WORDS
from tests.support.trainer import only_run, train_with

pytestmark = pytest.mark.slow
STEP = "step-00000010.safetensors"
DIE_BEFORE_THE_ROWS = """
from stn.runs.directory import RunDir
def die(*_):
    raise KeyboardInterrupt
RunDir.add_results = die
"""


def unfinished(runs: Path, *words: str) -> Path:
    """Leave a run that has checkpoints of steps 8 and 10 and final weights, but no rows; return its checkpoints."""
    done = train_with(DIE_BEFORE_THE_ROWS, *WORDS, *words, runs=runs)
    assert done.returncode == 130, done.stderr
    return only_run(runs).path / "checkpoints"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    assert train_with("", *WORDS, runs=runs).returncode == 0
    return Outcome.read(runs)


@pytest.mark.parametrize("of", ["seed", "step", "signature", "architecture", "kind"])
def test_a_swapped_checkpoint_is_refused(of: str, expected: Outcome, tmp_path: Path) -> None:
    ours = unfinished(tmp_path / "runs")
    if of in ("signature", "architecture"):
        words = ("--lr", "0.01") if of == "signature" else ("--arch", "cnn")
        source = unfinished(tmp_path / "others", *words) / "seed-0" / STEP
    else:
        names = {"seed": f"seed-1/{STEP}", "step": "seed-0/step-00000008.safetensors"}
        source = ours / names.get(of, "seed-0/final.safetensors")
    shutil.copy(source, ours / "seed-0" / STEP)
    done = train_with("", *WORDS, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert f"{STEP} is another file under this name" in done.stdout
    assert "falling back to the checkpoint before it" in done.stdout
    assert Outcome.read(tmp_path / "runs").faults(expected) == []
