"""The flags of train.py, the spellings that they accept, and a hint for each flag that does not exist."""

import re
from itertools import pairwise
from typing import Any

from stn.config import registry
from stn.config.fields import choices
from stn.config.flags.foreign import HINTS
from stn.config.registry import closest, same_name
from stn.config.schema import Config
from stn.config.yaml_files import SHORT


def _dashed(name: str) -> str:
    return name.replace("_", "-")


_FIELDS: dict[tuple[str, str], Any] = {
    (section, key): field.annotation
    for section, owner in Config.model_fields.items()
    for key, field in owner.annotation.model_fields.items()  # type: ignore[union-attr]
}
"""(Section, key) -> its type."""
FLAGS: dict[str, tuple[str, str]] = {
    **{f"--{section}.{_dashed(key)}": (section, key) for section, key in _FIELDS},
    **{f"--{_dashed(name)}": field for name, field in SHORT.items()},
}
"""Flag -> (section, key)."""
_SWITCHES = {flag for flag, field in FLAGS.items() if _FIELDS[field] is bool}
"""Flags without a value; only these have a form with no-."""
_ALIKE = 0.78
"""Similarity from which an unknown flag is taken for a typo: --drop is not --data.crop (0.75)."""
_COMMAND_FLAGS = {"--config", "--check", "--list", "--help", "-h"}


def split(argument: str) -> tuple[str, str, str]:
    """Split --flag=value into the flag with hyphens, '=' and the value; the last two are empty without a '='."""
    flag, equals, value = argument.partition("=")
    return (flag.replace("_", "-") if flag.startswith("-") else flag), equals, value


def _is_known(flag: str) -> bool:
    own = flag in _COMMAND_FLAGS or flag.startswith("--tyro-")  # completion for shells
    return own or flag in FLAGS or re.sub(r"^(--\w+\.)no-", r"\1", flag) in _SWITCHES


def _plugin_options() -> dict[str, Any]:
    """Return the options of plugins' architectures, which the schema does not have, with their defaults."""
    options = {key: default for entry in registry.entries["arch"].values() for key, default in entry.options.items()}
    return {key: default for key, default in options.items() if ("arch", key) not in _FIELDS}


def take_plugin_options(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments without the options of plugins' architectures, and these options with their values."""
    own, rest, taken, words = _plugin_options(), list[str](), dict[str, Any](), iter(arguments)
    for word in words:
        flag, equals, value = split(word)
        key = flag.removeprefix("--arch.").replace("-", "_")
        bare = key.removeprefix("no_")
        if not flag.startswith("--arch.") or bare not in own:
            rest.append(word)
        elif isinstance(own[bare], bool) and not equals:
            taken[bare] = key == bare
        else:
            value = value if equals else next(words, "")
            taken[key] = value.split(",") if isinstance(own[bare], tuple | list) else value
    return rest, taken


def take_plugins(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without --plugin, which may come several times, and the modules that it names."""
    rest, named, words = list[str](), list[str](), iter(arguments)
    for word in words:
        flag, equals, value = split(word)
        if flag in ("--plugin", "--train.plugins"):
            named += (value if equals else next(words, "")).split(",")
        else:
            rest.append(word)
    if "" in named:
        raise ValueError("--plugin needs the name of a module, such as my_package.module")
    return rest, named


def _of_sections(key: str, no: bool) -> str:
    """Return the flags of a key; ``no``: those that turn it off, which only switches have."""
    flags = [f"--{section}.{_dashed(key)}" for section, name in sorted(_FIELDS) if name == key]
    if not no:
        return " or ".join(flags)
    return " or ".join(flag.replace(".", ".no-") if flag in _SWITCHES else f"{flag} VALUE" for flag in flags)


def _suggestion(flag: str, own: set[str]) -> str:
    """Return what to type instead of an unknown flag: another program's, a key without its section, or a typo."""
    word = re.sub(r"^-([A-Za-z])[0-9]+$", r"\1", flag).lstrip("-").lower()  # -j4 is -j 4
    bare = word.rpartition(".")[2]
    positive = bare.removeprefix("no-")
    no = positive != bare
    if hint := HINTS.get(word) or HINTS.get(bare):
        return hint
    if (hint := HINTS.get(positive, "use ")) and not hint.startswith("use "):  # which --no-... would not want
        return hint
    keys = {key for _, key in _FIELDS}
    if (key := positive.replace("-", "_")) in keys:
        return f"use {_of_sections(key, no)}"
    if swapped := [name for name in (*FLAGS, *_COMMAND_FLAGS, *own) if sorted(name) == sorted(flag)]:
        return f"did you mean {swapped[0]}?"
    if not no and (near := closest(flag, {*FLAGS, *_COMMAND_FLAGS, *own}, _ALIKE)):
        return f"did you mean {near}?"
    near = closest(positive, keys, _ALIKE)
    return f"did you mean {_of_sections(near, no)}?" if near else "--help has every flag"


def refuse_unknown(arguments: list[str]) -> None:
    """Raise ValueError with a hint for each flag that does not exist."""
    own = {f"--arch.{_dashed(option)}" for option in _plugin_options()}
    flags = dict.fromkeys(split(word)[0] for word in arguments if re.match(r"--?[A-Za-z]", word))
    hints = [f"no flag {flag:.80}; {_suggestion(flag, own)}" for flag in flags if not _is_known(flag)]
    if hints:
        raise ValueError("\n".join(hints))


def with_optional_values(arguments: list[str]) -> list[str]:
    """Return the arguments with a --check that has no value as --check=short, and such a --list as --list=*."""
    given = []
    for word, following in pairwise([*arguments, ""]):
        without_mode = word == "--check" and following.lower() not in ("short", "full")
        without_pattern = word == "--list=" or (word == "--list" and (not following or following.startswith("-")))
        given.append("--check=short" if without_mode else "--list=*" if without_pattern else word)
    return given


def canonical(arguments: list[str]) -> list[str]:
    """Return the arguments with every choice spelt as the schema spells it: --precision BF16 is bf16."""
    spelt: list[str] = []
    known: tuple[str, ...] = ()
    for argument in arguments:
        flag, equals, value = split(argument)
        if equals and flag in FLAGS:
            argument = f"{flag}={same_name(value, choices(_FIELDS[FLAGS[flag]]))}"
        elif known:
            argument = same_name(argument, known)
        known = choices(_FIELDS[FLAGS[flag]]) if flag in FLAGS and not equals else ()
        known = ("short", "full") if argument == "--check" else known
        spelt.append(argument)
    return spelt
