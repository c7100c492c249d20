"""What needs torch, known without importing it: a function by its place, a package's entries by their source.

Entries are read from the source, without running it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class LazyFunction:
    """A function that is imported when it is first called."""

    module: str
    name: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module(self.module), self.name)(*arguments, **options)


@dataclass(frozen=True)
class LazyModule:
    """A module that is imported when one of its functions is called."""

    module: str

    def __getattr__(self, name: str) -> LazyFunction:
        return LazyFunction(self.module, name)


def _options(node: ast.FunctionDef | ast.ClassDef) -> dict[str, Any]:
    """Return the keyword-only arguments of a function, or the fields of a dataclass, with their defaults."""
    if isinstance(node, ast.ClassDef):
        defaults: Any = [(ast.unparse(f.target), f.value) for f in node.body if isinstance(f, ast.AnnAssign)]
    else:
        defaults = zip((a.arg for a in node.args.kwonlyargs), node.args.kw_defaults, strict=True)
    values = {}
    for option, default in defaults:
        try:
            values[option] = ast.literal_eval(default)
        except ValueError:
            raise ValueError(
                f"{node.name}: '{option}' needs a literal default; it is read without running it"
            ) from None
    return values


def scan_package(package: str) -> Iterator[tuple[str, str, LazyFunction, str | None, dict[str, Any]]]:
    """Yield kind, name, function, docstring and options of every @register in the modules of a package."""
    paths = sorted(ROOT.joinpath(*package.split(".")).glob("*.py"))
    trees = {f"{package}.{path.stem}": ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    nodes = [(m, n) for m, tree in trees.items() for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    definitions = {node.name: node for _, node in nodes}
    for module, node in nodes:
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "register":
                given = dict(zip(("kind", "name", "extends"), call.args, strict=False))
                given |= {str(keyword.arg): keyword.value for keyword in call.keywords}
                name = ast.literal_eval(given["name"]) if "name" in given else node.name
                base = _options(definitions[ast.unparse(given["extends"])]) if "extends" in given else {}
                function = LazyFunction(module, node.name)
                yield ast.literal_eval(given["kind"]), name, function, ast.get_docstring(node), base | _options(node)
