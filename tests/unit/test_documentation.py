"""README and manual: short enough, and naming only files, flags and commands that exist."""

import dataclasses
import inspect
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import stn
from launch import __main__ as launch
from launch.sweep.commands import Submission
from stn.config.schema import Config
from stn.config.yaml_files import SHORT
from tests.support.paths import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SECTIONS = {name: type(getattr(Config(), name)) for name in Config.model_fields}
FLAGS = {f"--{section}.{name.replace('_', '-')}" for section, owner in SECTIONS.items() for name in owner.model_fields}
FLAGS |= {f"--{name.replace('_', '-')}" for name in SHORT} | {"--config", "--check", "--list", "--help"}
COMMANDS = [launch.start_sweep, launch.retry, launch.status, launch.report, launch.wandb_sync, launch.export]
OTHER_FLAGS = {f"--{name.replace('_', '-')}" for command in COMMANDS for name in inspect.signature(command).parameters}
OTHER_FLAGS |= {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Submission)}
OTHER_FLAGS |= {"--json"}  # `status` calls its parameter as_json
for path in (
    *(ROOT / "stn" / "commands").glob("*.py"),
    *(ROOT / "benchmarks").glob("*.py"),
    ROOT / "tests/chaos/__main__.py",
    ROOT / "tests/chaos/fuzz.py",
):
    OTHER_FLAGS |= set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", path.read_text()))
EXAMPLE = "--arch.width"
"""The option of the architecture that the manual registers."""
FOREIGN_FLAGS = {
    *(
        "--config_file",
        "--cpu",
        "--dynamo_backend",
        "--machine_rank",
        "--main_process_ip",
        "--mixed_precision",
    ),  # of accelerate
    *("--num_machines", "--num_processes"),
    *("--cpus-per-task", "--gres", "--nodes", "--ntasks-per-node", "--signal", "--time"),  # of Slurm
    *("--array", "--gpus-per-node", "--nice", "--reservation", "--wrap"),  # also of Slurm
    *("--bind", "--entrypoint", "--gpus", "--nv"),  # of containers
    *("--amp", "--hflip", "--model", "--reprob", "--resume"),  # of timm and torchvision's references
}


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert len(text.split()) <= 1500


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text()
    if page.parent.name != "docs":  # those are filled in and moved while the manual is built
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            generated = page.parent.joinpath(link).resolve().relative_to(ROOT).as_posix()
            made = {"docs/pages/results.md", *(f"docs/pages/reference/{n}.md" for n in
                    ("configuration", "commands", "python", "architectures", "datasets", "recipes"))}  # fmt: skip
            assert generated in made or page.parent.joinpath(link).exists(), link
    for name in re.findall(r"`?((?:configs|stn|launch|slurm|benchmarks|tests)/[\w/.-]+\.\w+)", text):
        assert (ROOT / name).exists() or name in ("stn/models/mine.py", "configs/foo.yaml"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_flags_exist(page: Path) -> None:
    named = {flag.rstrip(".") for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", page.read_text())}
    assert {flag.replace(".no-", ".") for flag in named} <= FLAGS | OTHER_FLAGS | FOREIGN_FLAGS | {EXAMPLE}


def test_the_index_of_benchmarks_has_them_all() -> None:
    named = re.findall(r"`(?:[\w/]*/)?([\w*]+\.py)", (ROOT / "benchmarks" / "README.md").read_text())
    scripts = [path.name for path in (ROOT / "benchmarks").glob("*.py")]
    assert not [name for name in scripts if not any(fnmatch(name, pattern) for pattern in named)]
    assert not [pattern for pattern in named if not any(fnmatch(name, pattern) for name in scripts)]


def test_the_version_is_the_same_wherever_it_stands() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert stn.__version__ == project["version"] == cited["version"]
