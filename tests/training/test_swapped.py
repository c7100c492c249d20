"""A checkpoint of something else under the name of ours is refused: the run falls back and ends as if undisturbed."""

import shutil
from pathlib import Path

import pytest

from stn.runs.directory import RunDir
from tests.chaos.outcome import Outcome
from tests.chaos.victim import end_of, start, undisturbed
from tests.support.trainer import only_run

STEP = "step-00000010.safetensors"


def _die_before_the_rows() -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    RunDir.add_results = die  # type: ignore[method-assign]


def unfinished(runs: Path, *words: str) -> Path:
    """Leave a run that has checkpoints of steps 8 and 10 and final weights, but no rows; return its checkpoints."""
    assert end_of(start(runs, *words, before=_die_before_the_rows)) == 130
    return only_run(runs).path / "checkpoints"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return undisturbed(tmp_path_factory.mktemp("undisturbed")).expected


@pytest.mark.parametrize("of", ["seed", "step", "signature", "architecture", "kind"])
def test_a_swapped_checkpoint_is_refused(
    of: str, expected: Outcome, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ours = unfinished(tmp_path / "runs")
    if of in ("signature", "architecture"):
        words = ("--lr", "0.01") if of == "signature" else ("--arch", "cnn")
        source = unfinished(tmp_path / "others", *words) / "seed-0" / STEP
    else:
        names = {"seed": f"seed-1/{STEP}", "step": "seed-0/step-00000008.safetensors"}
        source = ours / names.get(of, "seed-0/final.safetensors")
    shutil.copy(source, ours / "seed-0" / STEP)
    capfd.readouterr()
    assert end_of(start(tmp_path / "runs")) == 0
    told = "".join(capfd.readouterr()) + (tmp_path / "runs.log").read_text()
    assert f"{STEP} is another file under this name" in told
    assert "falling back to the checkpoint before it" in told
    assert Outcome.read(tmp_path / "runs").faults(expected) == []
