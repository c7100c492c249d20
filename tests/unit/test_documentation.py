"""README and manual: short enough, and naming only files, flags and commands that exist."""

import re
from pathlib import Path

import pytest

from stn.config.schema import Config
from stn.config.yaml_files import SHORT
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = {f"--{section}.{name.replace('_', '-')}" for section, owner in Config.model_fields.items() for name in
         owner.annotation.model_fields}  # fmt: skip
FLAGS |= {f"--{name.replace('_', '-')}" for name in SHORT}


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
                    ("configuration", "commands", "architectures", "datasets", "recipes"))}  # fmt: skip
            assert generated in made or page.parent.joinpath(link).exists(), link
    for name in re.findall(r"`?((?:configs|stn|launch|slurm|benchmarks|tests)/[\w/.-]+\.\w+)", text):
        assert (ROOT / name).exists() or name in ("stn/models/mine.py", "configs/foo.yaml"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_flags_of_train_exist(page: Path) -> None:
    dotted = set(re.findall(r"(--(?:arch|data|optim|train|eval|checkpoint|log)\.[\w-]+)", page.read_text()))
    assert {flag.replace(".no-", ".") for flag in dotted} <= FLAGS
