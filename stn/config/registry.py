"""Names for what a user can pick: architectures, networks, data sets.

An entry is a decorated function; its keyword-only arguments are its options and its
docstring's first line is what ``--list`` prints.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from stn.config.lazy import LazyFunction, scan_package


class Entry(NamedTuple):
    function: Callable
    line: str
    """What --list prints."""
    options: dict[str, Any]


KINDS = {"arch": "architecture", "net": "network", "dataset": "data set"}
_entries: dict[str, dict[str, Entry]] = {}


def _keywords(function: Callable) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _entry(kind: str, name: str, function: Callable, text: str | None, options: dict[str, Any]) -> Entry:
    if not text:
        raise ValueError(f"{kind} '{name}' has no docstring; its first line is shown by --list")
    return Entry(function, text.strip().splitlines()[0], options)


def register(kind: str, name: str | None = None, extends: Callable | None = None) -> Callable:
    """Register a function under a name (default: its own); ``extends`` is a callable whose options it passes on."""

    def enter(function: Callable) -> Callable:
        own, known = name or function.__name__, _entries.setdefault(kind, {})
        if own in known and not isinstance(known[own].function, LazyFunction):
            raise ValueError(f"{kind} '{own}' is registered twice")
        options = (_keywords(extends) if extends else {}) | _keywords(function)
        known[own] = _entry(kind, own, function, function.__doc__, options)
        return function

    return enter


def expect(package: str) -> None:
    """Register the entries of a package from its source; importing it replaces them with the functions."""
    for kind, name, function, text, options in scan_package(package):
        _entries.setdefault(kind, {}).setdefault(name, _entry(kind, name, function, text, options))


def names(kind: str) -> dict[str, str]:
    """Return every name of a kind with its one-line description."""
    return {name: entry.line for name, entry in _entries[kind].items()}


def nearest(word: str, known) -> str:
    """Return a hint for a misspelt word: the closest known one, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _find(kind: str, name: str) -> Entry:
    if name not in _entries[kind]:
        raise ValueError(f"no {KINDS.get(kind, kind)} '{name}'; {nearest(name, _entries[kind])}")
    return _entries[kind][name]


def find(kind: str, name: str) -> Callable:
    return _find(kind, name).function


def options(kind: str, name: str) -> dict[str, Any]:
    """Return the options of an entry with their defaults."""
    return dict(_find(kind, name).options)


for _package in ("stn.models", "stn.data"):
    expect(_package)
