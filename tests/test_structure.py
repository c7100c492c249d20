"""The house: imports go one way, files stay short, torch stays out of where it must not be."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

LAYERS = [
    {"stn.registry", "stn.rng", "stn.sampling", "stn.replay", "stn.weights"},
    {"stn.fields", "stn.warp"},
    {"stn.schema"},
    {"stn.config", "stn.transforms"},
    {"stn.rundir", "stn.archs", "stn.data", "stn.seeds", "stn.stop", "stn.cli", "stn.env"},
    {"stn.wandb_run"},
    {"stn.checkpoint", "stn.optim", "stn.sinks", "stn.resolve", "stn.runtime", "stn.trials"},
    {"stn.log", "stn.meter"},
    {"stn.fuse", "stn.evaluate", "stn.resume", "stn.pose"},
    {"stn.describe", "stn.look", "stn.pictures"},
    {"stn.finish", "stn.show", "stn.export"},
    {"train", "launch"},
]
WITHOUT_TORCH = {
    "stn.registry",
    "stn.fields",
    "stn.schema",
    "stn.config",
    "stn.rundir",
    "stn.cli",
    "stn.env",
    "stn.wandb_run",
    "stn.sinks",
    "stn.log",
    "stn.trials",
}
FILES = [ROOT / "train.py", *sorted((ROOT / "stn").rglob("*.py")), *sorted((ROOT / "launch").rglob("*.py"))]


def part(module: str) -> str:
    """The unit of the layers that a module belongs to: packages count as one."""
    return "launch" if module.startswith("launch") else ".".join(module.split(".")[:2])


def name(path: Path) -> str:
    return part(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def imports(path: Path, everywhere: bool = True) -> set[str]:
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"stn.{alias.name}" for alias in node.names} if module == "stn" else {module}
    return found


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if module in names)


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "pack.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    own = name(path)
    if own == "stn":
        return
    for module in imports(path):
        if module.split(".")[0] in ("stn", "train", "launch") and part(module) != own:
            assert layer(part(module)) < layer(own), f"{own} must not import {module}"


@pytest.mark.parametrize("path", [p for p in FILES if name(p) in WITHOUT_TORCH or name(p) == "launch"], ids=str)
def test_torch_stays_out(path: Path) -> None:
    heavy = {m.split(".")[0] for m in imports(path, everywhere=False)} & {"torch", "accelerate", "wandb", "numpy"}
    assert not heavy


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_say_what_they_own(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 240
    assert not text.strip() or ast.get_docstring(ast.parse(text))
