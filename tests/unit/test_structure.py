"""Rules of the code base: imports go one way, files stay short, and only some packages import torch."""

import ast
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from stn.config import registry
from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config, Data
from stn.config.yaml_files import RECIPES, dump_yaml, load_yaml
from stn.models import nets, wirings  # noqa: F401  (they register themselves)
from tests.support.paths import ROOT
from tests.support.trainer import environment

PACKAGES = [
    "stn.config",
    "stn.runs",
    "stn.models",
    "stn.data",
    "stn.multiseed",
    "stn.tracking",
    "stn.training",
    "stn.evaluation",
    "stn.commands",
    "train",
]
"""Each package may import only those before it."""
LAUNCH = {"stn.config", "stn.runs", "stn.tracking"}
"""The packages of stn that launch may import."""
WITHOUT_TORCH = ("stn.config", "stn.runs", "stn.tracking", "stn.data.datasets", "stn.commands.library", "launch")
FILES = [ROOT / "train.py", *sorted((ROOT / "stn").rglob("*.py")), *sorted((ROOT / "launch").rglob("*.py"))]

TESTS = sorted((ROOT / "tests").rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package(module: str) -> str:
    return "launch" if module.startswith("launch") else ".".join(module.split(".")[:2])


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


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "pack.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    own = package(module(path))
    allowed = LAUNCH if own == "launch" else set(PACKAGES[: PACKAGES.index(own)]) if own in PACKAGES else set(PACKAGES)
    for name in imports(path):
        if name.split(".")[0] in ("stn", "train", "launch") and package(name) != own:
            assert package(name) in allowed, f"{own} must not import {name}"


@pytest.mark.parametrize("path", [p for p in FILES if module(p).startswith(WITHOUT_TORCH)], ids=str)
def test_torch_stays_out(path: Path) -> None:
    heavy = {m.split(".")[0] for m in imports(path, everywhere=False)} & {"torch", "accelerate", "wandb", "numpy"}
    assert not heavy - ({"numpy"} if "report" in path.parts else set())  # imported only to build a report


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_say_what_they_own(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 200
    assert not text.strip() or ast.get_docstring(ast.parse(text))


FOLDERS = sorted({path.parent for path in FILES} - {ROOT})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_folder_has_a_dozen_entries(folder: Path) -> None:
    entries = [p for p in folder.iterdir() if p.name not in ("__init__.py", "__pycache__")]
    assert len(entries) <= 12, sorted(p.name for p in entries)


@pytest.mark.slow
def test_tests_are_collected_where_w_and_b_is_missing() -> None:
    code = "import sys; sys.modules['wandb'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "-n0", "--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/gpu/test_gpu.py" in done.stdout


WITHOUT = """
import json, sys
from pathlib import Path
from stn.config.yaml_files import load_yaml
from stn.config.resolve import resolve, signature
found = {path.name: signature(resolve(load_yaml(path))) for path in Path(sys.argv[1]).iterdir()}
print(json.dumps([sorted({"torch", "numpy"} & set(sys.modules)), found]))
"""


def test_resolving_needs_no_torch_and_comes_to_the_same(tmp_path: Path) -> None:
    """Resolve every recipe, and every architecture on every data set, in a process without torch and in this one."""
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
    """Return the names that stn registers, without those of tests."""
    return [name for name, entry in registry.entries[kind].items() if entry.function.__module__.startswith("stn.")]


def test_source_and_registry_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names read from the source before torch is imported are those that are registered afterwards."""
    for path in (ROOT / "stn" / "models").glob("*.py"):
        import_module(f"stn.models.{path.stem}")
    registered = {kind: {name: registry.find(kind, name) for name in ours(kind)} for kind in ("arch", "net")}
    monkeypatch.setattr(registry, "entries", {kind: {} for kind in registry.KINDS})
    registry.read_package("stn.models")
    assert {kind: set(registry.entries[kind]) for kind in registered} == {k: set(v) for k, v in registered.items()}
    for kind, entries in registered.items():
        for name, entry in entries.items():
            lazy, line, options, *_ = registry.find(kind, name)
            assert isinstance(lazy, registry.LazyFunction)
            assert getattr(import_module(lazy.module), lazy.name) is entry.function
            assert (line, list(options.items())) == (entry.line, list(entry.options.items()))


def test_what_is_read_must_be_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    (tmp_path / "own.py").write_text("@register('arch')\ndef f(*, depth=1 + 1):\n    'One.'\n")
    with pytest.raises(ValueError, match="f: 'depth' needs a literal default"):
        registry.read_package("")


def test_what_is_imported_takes_the_place_of_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second entry of that name is refused."""
    monkeypatch.setattr(registry, "entries", {kind: {} for kind in registry.KINDS})
    registry.read_package("stn.models")
    assert isinstance(registry.find("arch", "cnn").function, registry.LazyFunction)
    registry.register("arch")(wirings.cnn)
    assert registry.find("arch", "cnn").function is wirings.cnn
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("arch")(wirings.cnn)


NEW_ARCH = """
import torch
from stn.config.registry import register
@register("arch")
def blank(make_net, shape, classes, *, depth=3):
    "Nothing."
"""
NEW_DATASET = """
from dataclasses import replace
from stn.config.registry import register
from stn.data.datasets import mnist
@register("dataset")
def stripes():
    "Digits behind bars."
    return replace(mnist(), net="tutorial")
"""
FIND = """
import sys
from stn.config import registry, resolve, schema
config = resolve.resolve(schema.Config(arch={"name": "blank"}, data={"name": "stripes"}))
print(registry.find("arch", "blank").line, config.arch.depth, config.arch.net, "torch" in sys.modules)
"""


def test_a_new_file_is_found_by_itself_without_importing_torch(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "stn", tmp_path / "stn", ignore=shutil.ignore_patterns("mnist_xz", "__pycache__"))
    (tmp_path / "stn" / "models" / "mine.py").write_text(NEW_ARCH)
    (tmp_path / "stn" / "data" / "mine.py").write_text(NEW_DATASET)
    words = [sys.executable, "-c", FIND]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "Nothing. 3 tutorial False\n"
