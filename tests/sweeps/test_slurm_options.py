"""The section slurm of a sweep file: options of sbatch, checked by name and quoted."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launch.sweep import sbatch, slurm
from launch.sweep.expand import expand
from launch.sweep.plan import read_sweep
from stn.config.source import SOURCE
from tests.support.slurm import fake_slurm
from tests.support.sweeps import TWO_CELLS, launch, save_plan, write_sweep

ALL = {
    "partition": "gpu,long",
    "account": "project x",
    "qos": 7,
    "constraint": "[a100|h100]&ib",
    "gres": "tmpdisk:100",
    "time": "2-12",
    "mem": "16G",
    "mail-user": "a@example.org",
    "mail-type": "end,FAIL",
    "extra": ["--nice=100", "--exclusive", '--comment=it\'s; $(touch hit) "x" \\ #'],
}


def directives(text: str) -> list[str]:
    """Return the options of a script as sbatch reads them; Slurm's own parser is asked in tests/cluster."""
    return [shlex.split(line)[1] for line in text.splitlines() if line.startswith("#SBATCH")]


def script(tmp_path: Path, options: dict[str, Any], **sweep: Any) -> list[str]:
    plan = save_plan(tmp_path, TWO_CELLS | {"slurm": options} | sweep)
    return directives(slurm.array_script(plan, plan.folder / "slurm" / "x" / "jobs-0.txt", 4, None))


def test_every_key_is_an_option_of_the_jobs(tmp_path: Path) -> None:
    found = script(tmp_path, ALL, gpus=2, memory="8G", time="1 hours")
    comment = '--comment=it\'s; $(touch hit) "x" \\ #'
    given = ["--partition=gpu,long", "--account=project x", "--qos=7", "--constraint=[a100|h100]&ib"]
    given += ["--gres=gpu:2,tmpdisk:100", "--time=2-12", "--mem=16G", "--mail-user=a@example.org"]
    assert found[-12:] == [*given, "--mail-type=END,FAIL", "--nice=100", "--exclusive", comment]
    names = [option.split("=")[0] for option in found]
    assert len(names) == len(set(names)), "slurm.time, mem and gres stand in place of time, memory and gpus"


def test_the_warning_before_a_limit_is_of_the_limit_that_holds(tmp_path: Path) -> None:
    assert "--signal=B:USR1@20" in script(tmp_path, {"time": "1"}, time="4 hours")
    assert "--signal=B:USR1@120" in script(tmp_path, {"time": "1:00:00"}, time="1 minute")


def test_the_section_moves_neither_jobs_nor_signatures(tmp_path: Path) -> None:
    before = save_plan(tmp_path, TWO_CELLS)
    change = expand(str(write_sweep(tmp_path, TWO_CELLS | {"slurm": ALL})), str(tmp_path / "runs"))
    assert change.plan.jobs == before.jobs
    assert not change.added
    assert not change.removed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitoin": "gpu"}, "unknown key 'partitoin'; did you mean 'partition'?"),
        ({"mail-usr": "me"}, "unknown key 'mail-usr'; did you mean 'mail-user'?"),
        ({"mail-type": "ENDE"}, "no mail type 'ENDE'; did you mean 'END'?"),
        ({"time": "4 hours"}, "not a time as Slurm writes it"),
        ({"time": "0:00"}, "no time at all"),
        ({"mem": "8GB"}, "mem: string should match"),
        ({"partition": ["a", "b"]}, "partition: input should be a valid string"),
        ({"partition": "a\n#SBATCH --uid=0"}, "partition: string should match"),
        ({"qos": True}, "quote it"),
        ({"account": ""}, "at least 1 character"),
        ({"extra": "--nice=1"}, "extra: input should be a valid list"),
        ({"extra": ["-n 3"]}, "not a long option of sbatch"),
        ({"extra": ["--nice 3"]}, "not a long option of sbatch"),
        ({"extra": ["--array=0-9"]}, "--array is not for a sweep file; the launcher sets --array"),
        ({"extra": ["--outp=x"]}, "--outp is not for a sweep file; the launcher sets --output"),
        ({"extra": ["--partition=gpu"]}, "--partition is the key partition"),
        ({"extra": ["--gres=gpu:1"]}, "--gres is the key gres"),
        ({"extra": ["--gpus=2"]}, "slurm.extra: --gpus=2 asks for GPUs that the training would not use; write gpus: N"),
        ({"extra": ["--gpus-per-node=1"]}, "and their type as slurm: {gres: gpu:TYPE:N}"),
        ({"extra": ["--gpus-per-t=1"]}, "--gpus-per-t=1 asks for GPUs"),
        ({"extra": ["--tres-per-task=cpu:1,gres/gpu:1"]}, "asks for GPUs"),
        ({"gres": "gpu:a100:2"}, "asks for 2 GPUs of a job, gpus for none; add gpus: 2"),
        ("gpu", "slurm: input should be a valid dictionary"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: Any, message: str) -> None:
    path = write_sweep(tmp_path, TWO_CELLS | {"slurm": options})
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message is compared below, without its escapes)
        read_sweep(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("gres", "gpus"), [("gpu", 1), ("gpu:3", 3), ("tmpdisk:5,gres/gpu:h100:2", 2)])
def test_gpus_by_their_type_stand_for_gpus(tmp_path: Path, gres: str, gpus: int) -> None:
    options = script(tmp_path, {"gres": gres}, gpus=gpus)
    assert [option for option in options if option.startswith("--gres")] == [f"--gres={gres}"]
    read_sweep(str(write_sweep(tmp_path, TWO_CELLS | {"slurm": {"gres": gres}, "gpus": gpus})))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-12", 3600), ("2-12:30", 3630), ("2-12:30:01", 3631)],
)
def test_times_are_slurms(text: str, minutes: int) -> None:
    assert sbatch.slurm_minutes(text) == minutes


def submit(tmp_path: Path, options: dict[str, Any], **env: str) -> list[list[str]]:
    """Run a sweep on a Slurm that notes how it was called; return the calls of sbatch."""
    path = write_sweep(tmp_path, TWO_CELLS | {"slurm": options})
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **fake_slurm(tmp_path) | env)
    assert done.returncode == 0, done.stderr
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    return [call for call in calls if call[0] == "sbatch"]


def test_sbatch_gets_them_as_words_and_the_report_those_of_its_queue(tmp_path: Path) -> None:
    array, report = submit(tmp_path, ALL)
    assert {"--account=project x", ALL["extra"][2], "--mail-type=END,FAIL"} <= set(array)
    own = [word for word in report if word.split("=")[0][2:] in sbatch.KEYS]
    assert own == ["--partition=gpu,long", "--account=project x", "--qos=7"]
    assert not (SOURCE / "hit").exists()


def test_a_report_job_that_is_refused_leaves_the_arrays(tmp_path: Path) -> None:
    env, path = fake_slurm(tmp_path), write_sweep(tmp_path, TWO_CELLS)
    (tmp_path / "refused").write_text("report.sh")
    done = launch("sweep", path, "--on", "slurm", "--runs", tmp_path / "runs", **env)
    assert done.returncode == 0, done.stderr
    assert "warning: no report job (sbatch: error: refused)" in done.stdout
    assert "python -m launch report" in done.stdout


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose slurm/env.sh sets variables of sbatch."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "env.sh").write_text(
        'echo "loading modules"\nexport SBATCH_ACCOUNT="${SBATCH_ACCOUNT:-site}" SBATCH_QOS=low OTHER=1 SBATCH_WAIT=1\n'
    )
    monkeypatch.setattr(sbatch, "SOURCE", tmp_path)
    monkeypatch.setattr(sbatch, "site_variables", sbatch.site_variables.__wrapped__)
    return tmp_path


def test_the_sites_variables_are_read_before_sbatch(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sbatch.site_variables() == {"SBATCH_ACCOUNT": "site", "SBATCH_QOS": "low"}
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    overruling = ("NO_REQUEUE", "ARRAY_INX", "OUTPUT", "OPEN_MODE", "EXPORT", "REQUEUE", "SIGNAL")
    for name in overruling:
        monkeypatch.setenv(f"SBATCH_{name}", "x")
    assert sbatch.site_variables()["SBATCH_ACCOUNT"] == "mine"
    seen: list[dict[str, str]] = []

    def run(words: tuple[str, ...], env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
        seen.append(env)
        return subprocess.CompletedProcess(words, 0, "SBATCH_QOS=low\0PATH=x\0" if words[0] == "bash" else "7\n", "")

    monkeypatch.setattr(sbatch.subprocess, "run", run)
    assert sbatch.sbatch("x.sh") == "7"
    assert seen[-1] == seen[0] | {"SBATCH_QOS": "low"}
    assert not {f"SBATCH_{name}" for name in overruling} & seen[-1].keys(), "they would win over our scripts"


def test_gpus_that_the_site_asks_for_and_the_file_does_not_are_warned_of(tmp_path: Path) -> None:
    def told(**env: str) -> str:
        path = write_sweep(tmp_path, TWO_CELLS | {"slurm": {"extra": ["--gpu-bind=none", "--cpus-per-gpu=2"]}})
        words = ("--on", "slurm", "--runs", tmp_path / env.get("SBATCH_GRES", "runs").replace(":", "-"))
        return launch("sweep", path, *words, **slurm_env | env).stdout

    slurm_env = fake_slurm(tmp_path)
    assert "jobs get no GPU" in told()
    assert "jobs get no GPU" in told(SBATCH_GRES="tmpdisk:5")
    warned = told(SBATCH_GRES="gpu:1", SBATCH_GPUS_PER_NODE="2")
    assert "warning: jobs hold the GPUs of SBATCH_GPUS_PER_NODE=2, SBATCH_GRES=gpu:1 and train on CPUs" in warned
    assert "write gpus: N in the sweep file to use them" in warned
    assert "jobs get no GPU" not in warned


def test_a_site_that_is_not_set_up_is_an_error_before_sbatch(site: Path) -> None:
    (site / "slurm" / "env.sh").write_text('echo "no environment in /x" >&2\nreturn 1\n')
    with pytest.raises(ValueError, match=r"slurm/env\.sh: no environment in /x"):
        sbatch.sbatch("x.sh")
