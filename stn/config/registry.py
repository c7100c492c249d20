"""Names for what a user can pick: architectures, networks, data sets, transforms, metrics.

An entry is a decorated function; its keyword-only arguments are its options and its docstring's first line is what
``--list`` prints. The entries of stn.models, stn.data and of plugins are read from their source: importing them imports
torch.
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
KINDS = {
    "arch": "architecture",
    "net": "network",
    "dataset": "data set",
    "reader": "kind of data file",
    "transform": "transform",
    "metric": "metric",
}


TAKES = {"arch": 3, "net": 2, "dataset": 0, "reader": 1, "transform": 0, "metric": 2}
"""Positional arguments of each kind; options are keyword-only."""


@dataclass(frozen=True)
class LazyFunction:
    """A function whose module is imported when it is called."""

    module: str
    name: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module(self.module), self.name)(*arguments, **options)


class Entry(NamedTuple):
    function: Callable
    line: str
    """What --list prints."""
    options: dict[str, Any]
    """Option -> its default."""
    types: dict[str, Any]
    """Option -> its annotation; text if it was read from source."""
    module: str
    arguments: tuple[str, ...] = ()
    """Names of the positional arguments."""

    @property
    def may_localise(self) -> bool:
        """Whether the architecture may have a localisation net: ours with iterations do, others know themselves."""
        return "iterations" in self.options or not self.module.startswith("stn.")


entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
_definitions: dict[str, ast.FunctionDef | ast.ClassDef] = {}
"""Functions and classes of the modules read so far, by name: an entry may extend a class of another module."""


def _add(kind: str, name: str, docstring: str | None, entry: Entry) -> None:
    earlier = entries[kind].get(name)
    if earlier and (earlier.module != entry.module or not isinstance(earlier.function, LazyFunction)):
        raise ValueError(f"{KINDS[kind]} '{name}' is registered twice, by {earlier.module} and {entry.module}")
    if options := entry.arguments[TAKES[kind] :]:
        raise ValueError(
            f"{KINDS[kind]} '{name}': write a * before {', '.join(options)}, since options are keyword-only"
        )
    if not docstring:
        raise ValueError(f"{KINDS[kind]} '{name}' has no docstring; its first line is shown by --list")
    entries[kind][name] = entry._replace(line=docstring.strip().splitlines()[0])


def register(kind: str, /, *, extends: Any = None) -> Callable:
    """Register a function under its name; the fields of the dataclass ``extends`` are options of it, too."""
    if kind not in KINDS:
        raise ValueError(f"nothing registers as {kind!r:.80}; {nearest(kind, KINDS)}")

    def add(function: Callable) -> Callable:
        options = (extends.__init__.__kwdefaults__ if extends else {}) | (function.__kwdefaults__ or {})
        types = (extends.__annotations__ if extends else {}) | function.__annotations__
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        entry = Entry(function, "", options, types, function.__module__, arguments)
        _add(kind, function.__name__, function.__doc__, entry)
        return function

    return add


def _literal_options(node: ast.FunctionDef | ast.ClassDef) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keyword-only arguments of a function, or the fields of a dataclass: their defaults and types."""
    given: list[tuple[str, Any, Any]]
    if isinstance(node, ast.ClassDef):
        given = [(ast.unparse(f.target), f.value, f.annotation) for f in node.body if isinstance(f, ast.AnnAssign)]
    else:
        given = [(a.arg, d, a.annotation) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    defaults, types = {}, {}
    for option, default, annotation in given:
        try:
            defaults[option] = ast.literal_eval(default)
        except ValueError:
            raise ValueError(f"{node.name}: '{option}' needs a literal default; its source is read, not run") from None
        if annotation is not None:
            types[option] = ast.unparse(annotation)
    return defaults, types


def _definitions_of(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def read_modules(paths: dict[str, Path]) -> int:
    """Register the entries in modules' source as lazy ones, which an import replaces; return how many there are."""
    nodes = [(m, n) for m, path in paths.items() for n in _definitions_of(ast.parse(path.read_text(encoding="utf-8")))]
    _definitions.update({node.name: node for _, node in nodes})
    found = 0
    for module, node in nodes:
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("register", "stn.register"):
                bases = [_definitions[ast.unparse(k.value)] for k in call.keywords if k.arg == "extends"]
                read = [_literal_options(base) for base in (*bases, node)]
                options, types = ({k: v for part in read for k, v in part[i].items()} for i in (0, 1))
                arguments = tuple(a.arg for a in node.args.args) if isinstance(node, ast.FunctionDef) else ()
                entry = Entry(LazyFunction(module, node.name), "", options, types, module, arguments)
                _add(ast.literal_eval(call.args[0]), node.name, ast.get_docstring(node), entry)
                found += 1
    return found


def read_package(package: str) -> None:
    """Register the entries of all modules of a package of ours."""
    paths = sorted(ROOT.joinpath(*package.split(".")).glob("*.py"))
    read_modules({f"{package}.{path.stem}": path for path in paths})


def _letters(name: str) -> str:
    return name.casefold().translate({ord(mark): None for mark in "-_ "})


def same_name(word: str, known: Iterable[str]) -> str:
    """Return the known name that differs from a word in case, '-' and '_' only; the word if there is not just one."""
    known = list(known)
    same = [name for name in known if _letters(name) == _letters(word)]
    return word if word in known or len(same) != 1 else same[0]


def closest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name that a misspelt word is closest to, if the two are at least so similar."""
    names = {_letters(name): name for name in sorted(known)}
    close = difflib.get_close_matches(_letters(word), names, n=1, cutoff=cutoff)
    return names[close[0]] if close else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt word: those that begin with it, else the closest known one, else all of them."""
    known, letters = sorted(known), _letters(word)
    longer = [repr(name) for name in known if letters and _letters(name).startswith(letters)]
    if 1 < len(longer) <= MOST_HINTS:
        return f"did you mean {', '.join(longer[:-1])} or {longer[-1]}?"
    close = closest(word, known)
    return f"did you mean '{close}'?" if close else f"known: {', '.join(known) or 'none'}"


def canonical(kind: str, name: str) -> str:
    """Return a name as it is registered: 'STN-SLX' is stn_slx. Text after a ':' is kept."""
    name, colon, argument = name.partition(":")
    return same_name(name, entries["reader" if colon and kind == "dataset" else kind]) + colon + argument


def find(kind: str, name: str) -> Entry:
    """Return the entry of a name; ValueError with the nearest name if there is none."""
    if name not in entries[kind]:
        if kind == "arch" and set(name) & set("*?["):
            raise ValueError(f"no architecture {name!r:.80}; a pattern goes to --list, which prints those like it")
        hint = nearest(name, entries[kind])
        mine = "npz:FILE, folder:DIR or --plugin MODULE" if kind == "dataset" else "--plugin MODULE"
        own = f"; {mine} brings your own" if hint.startswith("known") else ""
        raise ValueError(f"no {KINDS[kind]} {name!r:.80}; {hint}{own}")
    return entries[kind][name]


for _package in ("stn.models", "stn.data", "stn.evaluation"):
    read_package(_package)
