"""Names for what a user can pick: architectures, networks, data sets.

An entry is a decorated function; its keyword-only arguments are its options and its
docstring's first line is what ``--list`` prints. Must not know what the entries build.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

_entries: dict[str, dict[str, Callable]] = {}
_options: dict[tuple[str, str], dict[str, Any]] = {}


def _keywords(function: Callable) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def register(kind: str, name: str | None = None, extends: Callable | None = None) -> Callable:
    """Enter a function under a name (its own); ``extends`` is a callable whose options it passes on."""

    def enter(function: Callable) -> Callable:
        entry, known = name or function.__name__, _entries.setdefault(kind, {})
        if entry in known:
            raise ValueError(f"{kind} '{entry}' is registered twice")
        if not function.__doc__:
            raise ValueError(f"{kind} '{entry}' has no docstring; its first line is shown by --list")
        known[entry] = function
        _options[kind, entry] = (_keywords(extends) if extends else {}) | _keywords(function)
        return function

    return enter


def names(kind: str) -> dict[str, str]:
    """Every name of a kind with its one-line description."""
    return {n: (f.__doc__ or "").strip().splitlines()[0] for n, f in _entries[kind].items()}


def nearest(word: str, known) -> str:
    """A hint for a misspelt word: the closest known one, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def find(kind: str, name: str) -> Callable:
    if name not in _entries[kind]:
        raise ValueError(f"unknown {kind} '{name}'; {nearest(name, _entries[kind])}")
    return _entries[kind][name]


def options(kind: str, name: str) -> dict[str, Any]:
    """The options of an entry with their defaults."""
    find(kind, name)
    return dict(_options[kind, name])
