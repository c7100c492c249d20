"""The house: imports go one way, files stay short, torch stays out of where it must not be."""

import ast
import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT, environment

from stn import archs, registry
from stn.config import RECIPES, dump_yaml, load_yaml, signature
from stn.later import Later, outline
from stn.resolve import resolve
from stn.schema import Arch, Config, Data

LAYERS = [
    {"stn.later", "stn.files"},
    {"stn.registry", "stn.rng", "stn.sampling", "stn.replay", "stn.weights"},
    {"stn.fields", "stn.warp", "stn.claim"},
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
    "stn.later",
    "stn.registry",
    "stn.fields",
    "stn.schema",
    "stn.config",
    "stn.rundir",
    "stn.files",
    "stn.claim",
    "stn.cli",
    "stn.env",
    "stn.wandb_run",
    "stn.sinks",
    "stn.log",
    "stn.trials",
    "stn.resolve",
    "stn.data.datasets",
}
FILES = [ROOT / "train.py", *sorted((ROOT / "stn").rglob("*.py")), *sorted((ROOT / "launch").rglob("*.py"))]


def part(module: str) -> str:
    """The unit of the layers that a module belongs to: packages count as one."""
    return "launch" if module.startswith("launch") else ".".join(module.split(".")[:2])


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def name(path: Path) -> str:
    return part(module(path))


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


@pytest.mark.parametrize("path", [p for p in FILES if module(p) in WITHOUT_TORCH or name(p) == "launch"], ids=str)
def test_torch_stays_out(path: Path) -> None:
    heavy = {m.split(".")[0] for m in imports(path, everywhere=False)} & {"torch", "accelerate", "wandb", "numpy"}
    assert not heavy - ({"numpy"} if path.parent.name == "report" else set())  # imported when a report is asked for


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_say_what_they_own(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 240
    assert not text.strip() or ast.get_docstring(ast.parse(text))


WITHOUT = """
import json, sys
from pathlib import Path
from stn.config import load_yaml, signature
from stn.resolve import resolve
found = {path.name: signature(resolve(load_yaml(path))) for path in Path(sys.argv[1]).iterdir()}
print(json.dumps([sorted({"torch", "numpy"} & set(sys.modules)), found]))
"""


def test_resolving_needs_no_torch_and_comes_to_the_same(tmp_path: Path) -> None:
    """Every recipe, and every architecture on every data set: in a process without torch, and in this one."""
    configs = {path.stem: load_yaml(path) for path in RECIPES.glob("*.yaml")}
    for arch in ours("arch"):
        configs |= {f"{arch} {data}": Config(arch=Arch(name=arch), data=Data(name=data)) for data in ours("dataset")}
    for name, config in configs.items():
        (tmp_path / name).write_text(dump_yaml(config))
    words = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    here = {name: signature(resolve(config)) for name, config in configs.items()}
    assert len(set(here.values())) > len(configs) // 2
    assert json.loads(done.stdout) == [[], here]


def ours(kind: str) -> list[str]:
    """What stn enters, without what tests do."""
    return [name for name in registry.names(kind) if registry.find(kind, name).__module__.startswith("stn.")]


def test_source_and_registry_say_the_same() -> None:
    """What is read before torch is imported is what enters itself afterwards."""
    read = {(kind, name): (function, text, options) for kind, name, function, text, options in outline("stn.archs")}
    for kind in ("arch", "net"):
        for name in ours(kind):
            function, text, options = read.pop((kind, name))
            entered = registry.find(kind, name)
            assert getattr(import_module(function.module), function.name) is entered
            assert (text, options) == (inspect.getdoc(entered), registry.options(kind, name))
            assert list(options) == list(registry.options(kind, name))
    assert not read


def test_what_is_read_must_be_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.later.ROOT", tmp_path)
    (tmp_path / "own.py").write_text("@register('arch')\ndef f(*, depth=1 + 1):\n    'One.'\n")
    with pytest.raises(ValueError, match="f: 'depth' needs a literal default"):
        list(outline(""))


def test_what_is_imported_takes_the_place_of_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the other way round; a second entry of that name is refused."""
    monkeypatch.setattr(registry, "_entries", {})
    registry.expect("stn.archs")
    assert isinstance(registry.find("arch", "cnn"), Later)
    registry.register("arch")(archs.wirings.cnn)
    registry.expect("stn.archs")
    assert registry.find("arch", "cnn") is archs.wirings.cnn
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("arch")(archs.wirings.cnn)
