"""python -m launch train: how many processes, and which seeds each trains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch import train as launch_train
from launch.__main__ import main as launch_main
from launch.sweep import job as jobs
from stn.config.command_line import parse
from stn.config.resolve import resolve_all
from stn.config.seed_list import parse_seeds
from stn.runs.cores import cores
from stn.runs.trials import build_trials
from tests.support.paths import ROOT
from tests.support.sweeps import TWO_CELLS, save_plan, write_sweep
from tests.support.trainer import QUICK, SMALL, Run, environment

# ---- the local launcher


@pytest.mark.parametrize(
    ("words", "gpus", "expected"),
    [
        ("--seeds 0-7", 0, ("cpu2.yaml", "3")),
        ("--seeds 0-1", 0, ("cpu2.yaml", "2")),
        ("--seeds 4", 0, ("one.yaml", "1")),
        ("--seeds 0-1 --lr 0.1,0.2", 0, ("cpu2.yaml", "3")),
        ("--seeds 0-7 --processes 2", 0, ("cpu2.yaml", "2")),
        ("--seeds 0-7 --check", 0, ("one.yaml", "1")),
        ("--seeds 0-7", 4, ("gpus.yaml", "4")),
        ("--seeds 4", 4, ("one.yaml", "1")),
    ],
)
def test_the_launcher_starts_a_process_per_device_but_no_more_than_seeds(
    words: str, gpus: int, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_train, "free_cores", lambda say: 3)
    monkeypatch.setattr(launch_train, "gpus", lambda: gpus)
    line = launch_train.command(words.split())
    assert (Path(line[line.index("--config_file") + 1]).name, line[line.index("--num_processes") + 1]) == expected
    assert line[-len(words.split()) :] == words.split()


def test_a_training_goes_on_with_as_many_processes_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"--arch cnn --seeds 0-9 --runs {tmp_path}".split()

    def processes(*more: str, gpus: int = 0) -> str:
        monkeypatch.setattr(launch_train, "gpus", lambda: gpus)
        line = launch_train.command([*words, *more])
        return line[line.index("--num_processes") + 1]

    monkeypatch.setattr(launch_train, "free_cores", lambda say: 4)
    monkeypatch.setattr(launch_train, "cores", lambda: 4)
    assert processes() == "4"
    (run,) = {trial.run for trial in build_trials(resolve_all(parse(words)), 1, 2) if trial.seed == 9}
    assert run.path.name == "5-9"
    run.path.mkdir(parents=True)
    run.env.write_text('{"world_size": 2}')
    assert processes() == "4", "nothing was saved"
    checkpoint = run.checkpoints / "seed-7" / "step-00000010.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert processes() == "2"
    assert processes("--seeds", "0-7") == "4", "other seeds are divided otherwise"
    assert processes("--lr", "0.3") == "4", "another experiment"
    assert processes("--processes", "3") == "3"
    assert (processes(gpus=8), processes(gpus=1)) == ("2", "1")
    assert processes("--retrain") == "4"
    later = run.path.with_name("0-2") / "checkpoints" / "seed-1" / "step-00000002.safetensors"
    later.parent.mkdir(parents=True)
    later.touch()
    (run.path.with_name("0-2") / "env.json").write_text('{"world_size": 3}')
    assert processes() == "3", "what was saved last counts"
    monkeypatch.setattr(launch_train, "cores", lambda: 2)
    assert processes() == "2", "no more than there are cores"
    shutil.rmtree(run.path.with_name("0-2"))
    run.env.write_text('{"world_size": "damaged"}')
    assert processes() == "4"


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for visible, count in (("", 0), ("-1", 0), ("NoDevFiles", 0), ("0", 1), ("2,3", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert launch_train.gpus() == count
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert launch_train.gpus() == 0


@pytest.mark.parametrize(
    ("script", "count"),
    [
        (
            "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo '  MIG 1g.10gb Device 0:'; echo 'GPU 1: NVIDIA'",
            2,
        ),
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9", 0),
        ("echo 'No devices were found'", 0),
    ],
)
def test_gpus_are_counted_by_the_drivers_own_tool(
    script: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    launch_train._count_gpus.cache_clear()
    assert launch_train.gpus() == count
    launch_train._count_gpus.cache_clear()


@pytest.mark.parametrize("words", [("train", "--seeds", "0-1"), ("sweep", "two.yaml")])
def test_a_driver_that_hangs_is_one_line(words: tuple[str, ...], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path, TWO_CELLS)
    for variable in ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(launch_train, "ANSWER_S", 0.5)
    monkeypatch.setattr(sys, "argv", ["launch", *words])
    launch_train._count_gpus.cache_clear()
    with pytest.raises(SystemExit) as ended:
        launch_main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: nvidia-smi does not answer within 0.5 s; ")


@pytest.mark.parametrize(("given", "expected"), [(None, "100"), ("7", "7")])
def test_launchers_give_their_processes_time_to_save(
    given: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one training, and of a job of a sweep."""
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    monkeypatch.delenv(name, raising=False) if given is None else monkeypatch.setenv(name, given)
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, words, env: seen.append(env) or sys.exit())
    monkeypatch.setattr(sys, "argv", ["launch", "train", "--seeds", "0-1", "--processes", "2"])
    with pytest.raises(SystemExit):
        launch_main()
    plan = save_plan(tmp_path, TWO_CELLS | {"gpus": 2})
    says = f"import os; print(os.environ['{name}'])"
    monkeypatch.setattr(jobs, "training_command", lambda *_: [sys.executable, "-c", says])
    jobs.Attempt(plan, plan.jobs[0], tmp_path / "log", {}).child.wait()
    assert (seen[0][name], (tmp_path / "log").read_text().strip()) == (expected, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_the_launcher_trains_seeds_in_processes(tmp_path: Path) -> None:
    processes = min(2, cores())
    words = ["--seeds", "0-3", "--steps", "4", "--processes", str(processes), *QUICK, *SMALL, "--runs", str(tmp_path)]
    line = [sys.executable, "-m", "launch", "train", *words]
    env = environment(ACCELERATE_USE_CPU="true")
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [row for path in tmp_path.glob("*/*/*") for row in Run(path).rows("results.jsonl")]
    assert sorted(row["seed"] for row in rows) == parse_seeds("0-3")
    assert {(row["mode"], row["world_size"]) for row in rows} == {("seeds" if processes > 1 else "single", processes)}
