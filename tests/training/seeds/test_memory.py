"""The memory that a job's control groups leave, from folders as the kernel writes them."""

from pathlib import Path

import pytest

from stn.multiseed import memory

JOB = "slurm/job_7"
FILES = {
    2: (
        "",
        "",
        {"memory.max": 8_000, "memory.current": 5_000, "memory.stat": "anon 4\nactive_file 100\ninactive_file 400"},
    ),
    1: (
        "memory",
        "cpu,memory",
        {
            "memory.limit_in_bytes": 8_000,
            "memory.usage_in_bytes": 5_000,
            "memory.stat": "inactive_file 9\ntotal_active_file 100\ntotal_inactive_file 400",
        },
    ),
}


@pytest.fixture(params=[1, 2])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A job with a limit, whose task has none: this process's list of groups, and beside it where they are mounted."""
    place, controllers, files = FILES[request.param]
    for folder, changes in ((JOB, {}), (f"{JOB}/step_0", {next(iter(files)): 2**63 if place else "max"})):
        (tmp_path / place / folder).mkdir(parents=True)
        for name, text in (files | changes).items():
            (tmp_path / place / folder / name).write_text(f"{text}\n")
    (tmp_path / "self").write_text(f"3:cpuset:/\n{request.param % 2}:{controllers}:/{JOB}/step_0\n")
    return tmp_path / "self"


def test_a_limit_of_the_job_holds_for_its_tasks(groups: Path) -> None:
    """Cached files do not count as used."""
    assert min(memory._left_by_limits(groups, groups.parent)) == 3_500


def test_what_is_not_there_or_not_to_be_read_has_no_limit(groups: Path, tmp_path: Path) -> None:
    assert list(memory._left_by_limits(groups, tmp_path / "elsewhere")) == []
    assert list(memory._left_by_limits(tmp_path / "none", groups.parent)) == []


def test_the_smaller_of_machine_and_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("", (), {"available": 1000}))
    for left, free in (([], 1000), ([2000], 1000), ([2000, 300], 300), ([-5], 0)):
        monkeypatch.setattr(memory, "_left_by_limits", lambda *_, left=left: iter(left))
        assert memory.free_host_bytes() == free
