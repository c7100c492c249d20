"""The container files, as far as they can be checked where nothing builds them: what they copy, call and run as."""

import json
import re
import subprocess
import tomllib

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "containers"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
INSTALL = ("--require-hashes -r", "--no-deps --no-build-isolation")
"""The pinned packages by the lock file, then the project without asking for any other."""
NEEDED = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "train.py", "stn", "launch", "configs", "slurm"}
"""What a wheel is built from (tests/training/library/test_install.py builds it from these)."""


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile."""
    lines = [line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def sections() -> dict[str, list[str]]:
    """Return the lines of each section of the Apptainer definition; those of its header are under ''."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in (FOLDER / "stn.def").read_text().splitlines():
        if line.startswith("%"):
            name = line[1:]
            found[name] = []
        elif line.strip() and not line.startswith("#"):
            found[name].append(line.strip())
    return found


def docker(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def test_the_base_is_pinned_and_the_same_as_ours() -> None:
    (base,) = docker("FROM")
    header = dict(line.split(": ") for line in sections()[""])
    assert header == {"Bootstrap": "docker", "From": base}
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", base)
    assert version, "a tag with all three numbers"
    pinned = re.findall(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    assert [version[1]] == pinned, "make lock pins for this Python"


@pytest.mark.parametrize("kind", ["docker", "apptainer"])
def test_what_is_copied_exists_and_is_all_that_a_wheel_needs(kind: str) -> None:
    if kind == "docker":
        copied = [source for line in docker("COPY") for source in line.split()[:-1]]
        folders = {line.split()[0]: line.split()[-1] for line in docker("COPY") if (ROOT / line.split()[0]).is_dir()}
        assert folders == {name: f"/src/{name}" for name in folders}, "COPY copies what is in a folder"
    else:
        copied = [line.split()[0] for line in sections()["files"]]
        assert [line.split()[1] for line in sections()["files"]] == [f"/src/{name}" for name in copied]
    assert len(copied) == len(set(copied))
    assert set(copied) == NEEDED | {"requirements.lock"}
    listed = subprocess.run(["git", "ls-files", "--", *copied], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split("/")[0] for name in listed.stdout.split()} == set(copied)


def test_what_is_copied_is_not_ignored() -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == NEEDED | {"requirements.lock"}


@pytest.mark.parametrize("kind", ["docker", "apptainer"])
def test_packages_are_those_of_the_lock_file(kind: str) -> None:
    lines = docker("RUN") if kind == "docker" else sections()["post"]
    commands = [command.strip() for line in lines for command in line.split("&&")]
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 2
    for command, flags in zip(installs, INSTALL, strict=True):
        assert flags in command
    assert installs[0].endswith("/requirements.lock")
    assert subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True).returncode == 0


def test_nobody_is_root_and_what_is_run_is_installed() -> None:
    assert [user for user in docker("USER") if not re.match(r"0|root", user)] == docker("USER") != []
    order = [word for word, _ in instructions()]
    assert order.index("USER") > max(i for i, word in enumerate(order) if word == "RUN")
    (entry,) = docker("ENTRYPOINT")
    assert json.loads(entry)[0] in SCRIPTS
    assert sections()["runscript"] == ['exec stn "$@"']
    assert sections()["test"][0].split()[0] in SCRIPTS
    assert not re.search(r"wandb_api_key|password|token", (FOLDER / "Dockerfile").read_text(), re.IGNORECASE)


def test_data_and_runs_are_mounts() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert "STN_DATA=/data" in text
    assert "STN_DATA=/data" in " ".join(sections()["environment"])
    assert "/project/runs" in text
    assert docker("WORKDIR") == ["/project"], "runs is a folder of the current one"
