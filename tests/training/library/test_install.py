"""pip install: the wheel has everything, and its commands work from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from launch.sweep import sbatch, slurm
from launch.sweep.slurm import array_script
from stn.config.source import INSTALLED, SOURCE, TRAIN
from stn.runs import process
from tests.support.paths import ROOT
from tests.support.sweeps import TINY, save_plan, write_sweep
from tests.support.trainer import environment

BESIDE = ("train.py", "configs", "slurm")
SOURCES = (*BESIDE, "stn", "launch", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy: setuptools leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).exists():
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    line = [*pip, "--wheel-dir", str(folder), str(folder / "source")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_a_clone_is_its_own_source() -> None:
    assert (SOURCE, TRAIN) == (ROOT, ROOT / "train.py")
    assert not INSTALLED.exists()


def test_the_wheel_has_every_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {path.relative_to(ROOT).as_posix() for name in ("stn", "launch") for path in (ROOT / name).rglob("*.py")}
    beside = {f"stn/files/{path.relative_to(ROOT)}" for name in BESIDE[1:] for path in (ROOT / name).rglob("*.*")}
    assert packages | beside | {"stn/files/train.py", "stn/py.typed"} <= names
    assert len([name for name in names if name.endswith(".xz")]) == 4
    assert any(name.startswith("launch/report/output/assets/") for name in names)
    assert "launch/report/analysis/published.yaml" in names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "stn/models/kernels/c").iterdir()} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks", "train"))]


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own, in which the pinned packages can be imported."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True)
    packages = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (folder / packages / "pinned.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def call(commands: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in environment(CUDA_VISIBLE_DEVICES="").items() if k != "PYTHONPATH"}
    line = [str(commands / words[0]), *words[1:]]
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_an_installed_package_works_from_an_empty_folder(commands: Path, tmp_path: Path) -> None:
    write_sweep(tmp_path, TINY | {"seeds": "0-1", "base": TINY["base"] | {"steps": 10, "eval": {"every": "5 steps"}}})
    for words, says in (
        (["stn", "check", "--config", "finnveden_r", "--arch", "stn_c0"], "signature"),
        (["stn", "list"], "configs/finnveden_r.yaml"),
        (["stn-launch", "sweep", "two.yaml"], "done (2 of 2 jobs)"),
        (["stn-launch", "report", "two"], "2 cells, 4 seeds"),
        (["stn-launch", "sweep", "Paper-MNIST", "--dry-run"], "paper_mnist: 15 cells"),
        (["stn", "train", "--steps", "2", "--limit-train", "256", "--limit-test", "50", "--name", "one"], "results "),
        (["python", "-m", "accelerate.commands.launch", "-m", "stn.train", "--list"], "Architectures (--arch)"),
    ):
        done = call(commands, tmp_path, *words)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        assert says in done.stdout
    env = json.loads(next(tmp_path.glob("runs/one/*/0/env.json")).read_text())
    assert (env["commit"], env["packages"]["stn-harness"]) == (None, "0.1.0")


@pytest.mark.slow
def test_bad_input_of_installed_commands_is_one_line(commands: Path, tmp_path: Path) -> None:
    for words, says in (
        (["stn", "check", "--gpus", "2"], "error: no flag --gpus; make train takes every GPU"),
        (["stn", "sweep", "smoke"], "error: no command 'sweep'; that is stn-launch sweep"),
        (["stn", "evalute"], "error: no command 'evalute'; did you mean 'evaluate'?"),
    ):
        done = call(commands, tmp_path, *words)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(says)
    assert not list(tmp_path.iterdir())


def test_an_installed_package_is_of_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SOURCE", INSTALLED)
    assert process.commit() == {"commit": None, "dirty": None}


def test_the_file_that_a_site_edits_is_no_uncommitted_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "slurm").mkdir()
    for name in ("slurm/env.sh", "train.py"):
        (tmp_path / name).write_text("1")
    git("init")
    git("add", "-A")
    git("commit", "-m", "one")
    monkeypatch.setattr(process, "SOURCE", tmp_path)
    known = process.commit()
    assert (len(known["commit"]), known["dirty"]) == (40, False)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "slurm" / "env.sh").write_text("2")
    assert process.commit() == known
    (tmp_path / "train.py").write_text("2")
    assert process.commit() == known | {"dirty": True}


def test_slurm_jobs_of_an_installed_package_use_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = save_plan(tmp_path, TINY)
    assert "STN_VENV" not in array_script(plan, tmp_path / "jobs", 1, None)
    monkeypatch.setattr(slurm, "SOURCE", INSTALLED)
    script = array_script(plan, tmp_path / "jobs", 1, None)
    assert f': "${{STN_VENV:={sys.prefix}}}"\nexport PYTHONPATH' in script
    assert f"export STN_ROOT={INSTALLED}" in script


def test_a_report_job_of_an_installed_package_finds_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its script sources slurm/env.sh, as this sbatch does, whose default is a clone's environment."""
    folder, tools = tmp_path / "files", tmp_path / "bin"
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    tools.mkdir()
    (tools / "sbatch").write_text('#!/bin/bash\nsource "$STN_ROOT/slurm/env.sh" >&2 && echo "$STN_VENV"\n')
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (tmp_path / "own" / "bin").mkdir(parents=True)
    (tmp_path / "own" / "bin" / "activate").touch()
    monkeypatch.setattr(sbatch, "site_variables", sbatch.site_variables.__wrapped__)
    for name in ("SOURCE", "INSTALLED"):
        monkeypatch.setattr(sbatch, name, folder)
    for given, used in (("", sys.prefix), (str(tmp_path / "own"), str(tmp_path / "own"))):
        monkeypatch.setenv("STN_VENV", given)
        assert sbatch.sbatch(str(folder / "slurm" / "report.sh")) == used
    monkeypatch.delenv("STN_VENV")
    assert sbatch.sbatch(str(folder / "slurm" / "report.sh")) == sys.prefix
