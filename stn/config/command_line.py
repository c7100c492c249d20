"""The command line: YAML first, flags over it, one clear message and exit code 2 for bad input.

Never imports torch, so that ``--help`` and bad input answer at once.
"""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from itertools import pairwise, product, takewhile
from typing import Literal, NoReturn

import tyro

from stn.config import plugins
from stn.config.flags import canonical, refuse_unknown, split, take_plugin_options, take_plugins, with_optional_values
from stn.config.flags.launcher import (
    drop_arithmetic,
    launcher_settings,
    refuse_copies,
    repeat_below_traceback,
    silence_reducer,
)
from stn.config.resolve import resolve_all, validate
from stn.config.schema import Arch, Config
from stn.config.seed_list import MOST_SEEDS, parse_seeds
from stn.config.yaml_files import LENGTHS, build_config, find_recipe, overlay, read_yaml

MOST_SETTINGS = 1000
_MESSAGE_S = 5.0
"""Seconds that other ranks wait while the main process prints: the launcher ends all ranks once one has failed."""
_MULTI_VALUED = ("--lr", "--optim.lr", "--optim.weight-decay")


class Command(Config):
    """Train spatial-transformer networks: one architecture, one data set, any number of seeds.

    `python train.py` is one process; `accelerate launch train.py` takes every GPU, `make train` every GPU or core,
    but no more of them than seeds.
    Values come from --config FILE (YAML), then from the command line.
    """

    config: str | None = None
    """YAML file to start from, or the name of one in configs/."""
    check: Literal["short", "full"] | None = None
    """Build everything, print what differs from the defaults and the network, and exit; full: every setting, too."""
    list: str = ""
    """Print the names of architectures, networks, data sets and recipes, or architectures like 'stn*', and exit."""


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def fail(message: object, code: int = 2, everywhere: bool = False) -> NoReturn:
    """Print one message, from the main process unless ``everywhere``, and exit; code 2 means bad input."""
    if everywhere or is_main_process():
        print(f"error: {message}", file=sys.stderr)
        repeat_below_traceback(f"error: {message}")
    else:
        time.sleep(_MESSAGE_S)
    raise SystemExit(code)


def _values(arguments: list[str]) -> dict[str, list[str]]:
    """Return the values given to each flag, as --flag VALUE or --flag=VALUE."""
    values: dict[str, list[str]] = {}
    if long := re.search(r"[0-9]{300}", " ".join(arguments)):  # int() refuses some of these, float() makes them inf
        raise ValueError(f"a number has 300 digits or more: {long[0][:40]}...")
    for argument, following in pairwise([*arguments, ""]):
        flag, equals, value = split(argument)
        values.setdefault(flag, []).append(value if equals else following)
    return values


def _expand(arguments: list[str]) -> list[list[str]]:
    """Return a command line per combination of --lr 0.01,0.02 and the like; the last of a repeated flag counts."""
    choices = []
    for flag, (*_, last) in _values(arguments).items():
        values = last.split(",")
        if flag in _MULTI_VALUED and len(values) > 1:
            if len(set(values)) < len(values) or "" in values:
                raise ValueError(
                    f"{flag}: '{last}' repeats or lacks a value; write different values, such as 0.01,0.02"
                )
            choices.append([f"{flag}={value}" for value in values])
    if math.prod(map(len, choices)) > MOST_SETTINGS:
        raise ValueError(f"{' and '.join(_MULTI_VALUED[1:])} have more than {MOST_SETTINGS:,} combinations")
    return [[*arguments, *choice] for choice in product(*choices)]


def _unboxed(text: str) -> str:
    """Return the message in tyro's error box, without frame, title, list of attempts and last line."""
    lines = [line for line in (line.strip("│| ") for line in text.splitlines()) if line.strip("─-╭╮╰╯")]
    said = " ".join(takewhile(lambda line: not line.startswith("For full helptext"), lines[1:]))
    return re.sub(r"^Error parsing | (Got errors|Argument helptext):.*", "", said)


def _with_data_flags(said: str) -> str:
    """Return tyro's message with what to write for a folder of data, where it is on a word that no flag takes."""
    word = said.removeprefix("Unrecognized options: ")
    if word == said or re.match(r"-|[\d.]+(e[-+]?\d+)?(,|$)", word):
        return said
    return f"{word:.200} belongs to no flag; write --data-root DIR, or for your own images --dataset folder:DIR"


@contextmanager
def one_line_errors(reword: Callable[[str], str] = str) -> Iterator[None]:
    """Raise ValueError with one line in place of tyro's error box."""
    caught = StringIO()
    try:
        with redirect_stderr(caught):
            yield
    except SystemExit as left:
        if left.code:
            raise ValueError(reword(_unboxed(caught.getvalue()))) from None
        raise


def _read_flags(arguments: list[str], default: Command) -> Command:
    """Return the default overridden by the flags; ValueError for a value that a flag does not accept."""
    with one_line_errors(_with_data_flags):
        return tyro.cli(
            Command,
            args=canonical(arguments),
            prog="train.py",
            default=default,
            config=(tyro.conf.AvoidSubcommands,),
            console_outputs=is_main_process(),
        )


def _parse_one(arguments: list[str], plugins: list[str]) -> Command:
    values = _values(arguments)
    files = values.get("--config", [])
    if len(files) > 1 or files == [""]:
        raise ValueError("give --config once" if len(files) > 1 else "--config needs a file")
    files = [str(find_recipe(file)) for file in files]
    lengths = {key: None for key in LENGTHS if {f"--{key}", f"--train.{key}"} & values.keys()}  # drop the file's
    archs = [{"arch": {"name": name}} for flag in ("--arch", "--arch.name") for name in values.get(flag, [])]
    launcher = launcher_settings(os.environ)
    layers = overlay(launcher, read_yaml(files[0]) if files else {}, {"train": lengths}, *archs)
    arguments, own = take_plugin_options(arguments)
    refuse_unknown(arguments)
    named = dict.fromkeys([*layers["train"].get("plugins", ()), *plugins])
    layers = overlay(layers, {"arch": own, "train": {"plugins": tuple(named)}})
    command = _read_flags(arguments, Command(**dict(build_config(layers, files[0] if files else "command line"))))
    own = {key: layers["arch"][key] for key in layers["arch"].keys() - Arch.model_fields.keys()}
    if own:  # tyro knows the schema's fields only
        command = command.model_copy(update={"arch": Arch(**command.arch.model_dump() | own)})
    wanted = launcher.get("train", {}).get("precision", command.train.precision)
    if wanted != command.train.precision:
        raise ValueError(f"the launcher asks for {wanted}; use --precision {wanted}, or another --mixed_precision")
    validate(command)
    return command


def parse(arguments: list[str]) -> list[Command]:
    """Return a configuration for each combination of --lr and --optim.weight-decay; exit with code 2 for bad input."""
    silence_reducer(os.environ)
    dropped = drop_arithmetic(os.environ)
    for text in dropped if is_main_process() else ():
        print(f"warning: {text}")
    try:
        arguments, named = take_plugins(with_optional_values(arguments))
        plugins.load_installed()
        plugins.load(named)
        commands = [_parse_one(line, named) for line in _expand(arguments)]
        if len(commands) * len(parse_seeds(commands[0].train.seeds)) > MOST_SEEDS:
            raise ValueError(f"{len(commands)} settings have more than {MOST_SEEDS:,} seeds together")
        if not commands[0].list:
            if not commands[0].check:
                refuse_copies(os.environ)
            resolve_all(commands)  # here, to refuse what cannot be trained before torch is imported
        return commands
    except ValueError as error:
        fail(error)
