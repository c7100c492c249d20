"""Names for what a user can pick: architectures, networks, data sets.

An entry is a decorated function; its keyword-only arguments are its options and its docstring's first line is what
``--list`` prints. The entries of stn.models and stn.data are read from their source: importing them imports torch.
"""

import ast
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
MOST_HINTS = 6
KINDS = {"arch": "architecture", "net": "network", "dataset": "data set"}


@dataclass(frozen=True)
class LazyFunction:
    """A function whose module is imported when it is called."""

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


class Entry(NamedTuple):
    function: Callable
    line: str
    """What --list prints."""
    options: dict[str, Any]


entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


def _add(kind: str, name: str, function: Callable, docstring: str | None, options: dict[str, Any]) -> None:
    earlier = entries[kind].get(name)
    if earlier and not isinstance(earlier.function, LazyFunction):
        raise ValueError(f"{kind} '{name}' is registered twice")
    if not docstring:
        raise ValueError(f"{kind} '{name}' has no docstring; its first line is shown by --list")
    entries[kind][name] = Entry(function, docstring.strip().splitlines()[0], options)


def register(kind: str, /, *, extends: Any = None) -> Callable:
    """Register a function under its name; the fields of the dataclass ``extends`` are options of it, too."""

    def add(function: Callable) -> Callable:
        options = (extends.__init__.__kwdefaults__ if extends else {}) | (function.__kwdefaults__ or {})
        _add(kind, function.__name__, function, function.__doc__, options)
        return function

    return add


def _literal_defaults(node: ast.FunctionDef | ast.ClassDef) -> dict[str, Any]:
    """Return the keyword-only arguments of a function, or the fields of a dataclass, with their defaults."""
    defaults: dict[str, Any]
    if isinstance(node, ast.ClassDef):
        defaults = {ast.unparse(f.target): f.value for f in node.body if isinstance(f, ast.AnnAssign)}
    else:
        defaults = dict(zip((a.arg for a in node.args.kwonlyargs), node.args.kw_defaults, strict=True))
    for option, default in defaults.items():
        try:
            defaults[option] = ast.literal_eval(default)
        except ValueError:
            raise ValueError(f"{node.name}: '{option}' needs a literal default; its source is read, not run") from None
    return defaults


def read_package(package: str) -> None:
    """Register the entries of a package from its source; importing a module replaces them with its functions."""
    paths = sorted(ROOT.joinpath(*package.split(".")).glob("*.py"))
    trees = {f"{package}.{path.stem}": ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    nodes = [(m, n) for m, tree in trees.items() for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    definitions = {node.name: node for _, node in nodes}
    for module, node in nodes:
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "register":
                bases = [definitions[ast.unparse(k.value)] for k in call.keywords if k.arg == "extends"]
                options = {k: v for base in (*bases, node) for k, v in _literal_defaults(base).items()}
                function = LazyFunction(module, node.name)
                _add(ast.literal_eval(call.args[0]), node.name, function, ast.get_docstring(node), options)


def _letters(name: str) -> str:
    return name.casefold().translate({ord(mark): None for mark in "-_ "})


def same_name(word: str, known: Iterable[str]) -> str:
    """Return the known name that differs from a word in case, '-' and '_' only; the word if there is not just one."""
    known = list(known)
    same = [name for name in known if _letters(name) == _letters(word)]
    return word if word in known or len(same) != 1 else same[0]


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt word is closest to, if one is close."""
    names = {_letters(name): name for name in sorted(known)}
    close = difflib.get_close_matches(_letters(word), names, n=1, cutoff=0.5)
    return names[close[0]] if close else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt word: those that begin with it, else the closest known one, else all of them."""
    known, letters = sorted(known), _letters(word)
    longer = [repr(name) for name in known if letters and _letters(name).startswith(letters)]
    if 1 < len(longer) <= MOST_HINTS:
        return f"did you mean {', '.join(longer[:-1])} or {longer[-1]}?"
    close = closest(word, known)
    return f"did you mean '{close}'?" if close else f"known: {', '.join(known)}"


def canonical(kind: str, name: str) -> str:
    """Return a name as it is registered: 'STN-SLX' is stn_slx."""
    return same_name(name, entries[kind])


def find(kind: str, name: str) -> Entry:
    """Return the entry of a name; ValueError with the nearest name if there is none."""
    if name not in entries[kind]:
        raise ValueError(f"no {KINDS[kind]} {name!r:.80}; {nearest(name, entries[kind])}")
    return entries[kind][name]


for _package in ("stn.models", "stn.data"):
    read_package(_package)
