"""Sweeps over the options of one architecture, also a plugin's."""

from pathlib import Path

from tests.support.plugin import write_plugin
from tests.support.sweeps import TWO_CELLS, expand_sweep, launch, save_plan, write_sweep


def test_configurations_of_one_architecture_are_told_apart(tmp_path: Path) -> None:
    archs = ["cnn", {"name": "stn_slx", "depth": 1}, {"name": "stn_slx", "depth": [0, 1]}]
    given = TWO_CELLS | {"grid": {"arch": archs, "lr": [0.1, 0.2]}}
    plan = save_plan(tmp_path, given)
    assert [job.label for job in plan.jobs if job.setting.endswith("lr=0.1")] == [
        "cnn mnist lr=0.1",
        "stn_slx mnist arch.depth=1 lr=0.1",
        "stn_slx mnist arch.depth=[0, 1] lr=0.1",
    ]
    alone = expand_sweep(tmp_path, given | {"grid": {"arch": archs[:2], "lr": [0.1, 0.2]}}).plan
    assert [job.label for job in alone.jobs] == [
        f"{arch} mnist lr={lr}" for arch in ("cnn", "stn_slx") for lr in (0.1, 0.2)
    ]
    assert {job.id for job in alone.jobs} < {job.id for job in plan.jobs}, "a name is no part of a job's id"
    done = launch("sweep", write_sweep(tmp_path, given | {"seeds": "0-4"}), "--dry-run", "--runs", tmp_path / "runs")
    assert "stn_slx mnist arch.depth=1 lr=0.1: seeds 4" in done.stdout


def test_a_plugins_option_excludes_combinations_that_have_it(tmp_path: Path) -> None:
    archs = ["cnn", "aligned", {"name": "aligned", "width": 16}, {"name": "aligned", "width": 32}]
    given = {"base": {"plugin": "my_package.things", "epochs": 1}, "grid": {"arch": archs}, "seeds": "0"}
    file = write_sweep(write_plugin(tmp_path), given | {"exclude": [{"arch.width": "16"}]})
    done = launch("sweep", file, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    titles = [line.partition("  ")[2] for line in done.stdout.splitlines()[1:]]
    assert titles == ["cnn mnist seeds 0", "aligned mnist seeds 0", "aligned mnist arch.width=32 seeds 0"]
