"""--train.profile: what it writes, and that it changes nothing else."""

import gzip
import json
from pathlib import Path

import pytest

from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Train
from tests.support.trainer import QUIET, Run, only_run, train, train_in_ranks, train_with

SHORT = ("--arch", "cnn", "--net", "tutorial", "--batch-size", 32, "--limit-train", 960, "--limit-test", 100,
         "--steps", 25, "--train.threads", 1, *QUIET)  # fmt: skip


def profiles(runs: Path) -> list[str]:
    return sorted(str(path.relative_to(runs)).split("/", 2)[2] for path in runs.glob("*/*/*/profile/*"))


def steps_of_trace(path: Path) -> list[str]:
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return sorted({event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")})


def weights(runs: Path) -> list[str]:
    return [row["weights_sha256"] for path in sorted(runs.glob("*/*/*")) for row in Run(path).results().values()]


@pytest.mark.slow
def test_a_profile_is_written_once_per_block_and_changes_no_number(tmp_path: Path) -> None:
    words = (*SHORT, "--seeds", "0-2", "--fuse", 2)
    plain = train(*words, runs=tmp_path / "plain")
    done = train(*words, "--train.profile", 4, runs=tmp_path / "profiled")
    assert (plain.returncode, done.returncode) == (0, 0), done.stderr
    assert "profiler_st" not in done.stdout + done.stderr, "the profiler's own log"
    assert weights(tmp_path / "plain") == weights(tmp_path / "profiled")
    assert profiles(tmp_path / "plain") == []
    names = ["seeds-0-1.json.gz", "seeds-0-1.txt", "seeds-2.json.gz", "seeds-2.txt"]
    assert profiles(tmp_path / "profiled") == [f"0-2/profile/{name}" for name in names]
    folder = only_run(tmp_path / "profiled").path / "profile"
    assert steps_of_trace(folder / "seeds-0-1.json.gz") == [f"ProfilerStep#{step}" for step in range(10, 14)]
    table = (folder / "seeds-0-1.txt").read_text()
    assert table.startswith("cnn mnist seed 0-1: steps 11 to 14 on cpu\n")
    assert "aten::convolution_backward" in table
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"profile   {folder / 'seeds-2.txt'}")]
    assert "ms a step; " in line


@pytest.mark.slow
def test_each_rank_of_a_batch_has_its_files(tmp_path: Path) -> None:
    done = train_in_ranks(*SHORT, "--parallel", "data", "--train.profile", 2, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert profiles(tmp_path) == [
        f"0/profile/seeds-0-rank-{rank}.{end}" for rank in (0, 1) for end in ("json.gz", "txt")
    ]


STOP_AT = """
from stn.training.stop import Stop
due = Stop.due
def stop(self, step):
    self._local_reason = self._local_reason or ("test" if step == {step} else None)
    return due(self, step)
Stop.due = stop
"""


@pytest.mark.slow
def test_a_profile_that_was_cut_short_is_made_at_the_next_start_and_only_there(tmp_path: Path) -> None:
    words = (*SHORT, "--steps", 40, "--train.profile", 3)
    stopped = train_with(STOP_AT.format(step=12), *words, runs=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    assert "resume" in stopped.stdout
    assert profiles(tmp_path) == []
    again = train_with(STOP_AT.format(step=24), *words, "--train.profile", 2, runs=tmp_path)
    assert "resumes at step 12" in again.stdout
    table = only_run(tmp_path).path / "profile" / "seeds-0.txt"
    assert table.read_text().startswith("cnn mnist seed 0: steps 23 to 24 on cpu")
    before = table.stat().st_mtime_ns
    ended = train(*words, runs=tmp_path)
    assert "resumes at step 24" in ended.stdout
    assert "profile   " not in ended.stdout
    assert table.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_training_that_is_too_short_says_so(tmp_path: Path) -> None:
    done = train(*SHORT, "--steps", 10, "--train.profile", 3, runs=tmp_path)
    assert "warning: no profile: 10 steps are left to train, a profile begins after 10" in done.stdout
    assert profiles(tmp_path) == []
    assert train(*SHORT, "--steps", 12, "--train.profile", 3, runs=tmp_path / "b").returncode == 0
    assert "steps 11 to 12 on" in (only_run(tmp_path / "b").path / "profile" / "seeds-0.txt").read_text()


@pytest.mark.slow
def test_a_file_that_cannot_be_written_harms_no_training(tmp_path: Path) -> None:
    patch = "from stn.training import profiler\ndef full(*_): raise OSError(28, 'No space left on device')\n"
    done = train_with(patch + "profiler.write_atomic = full", *SHORT, "--train.profile", 3, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning: no profile: [Errno 28] No space left on device" in done.stdout


def test_it_is_no_part_of_the_signature() -> None:
    assert signature(resolve(Config(train=Train(profile=7)))) == signature(resolve(Config()))
