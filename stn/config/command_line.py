"""The command line: YAML first, flags over it, one clear message and exit code 2 for bad input.

Never imports torch, so that ``--help`` and a typo answer at once.
"""

import os
import sys
from itertools import pairwise
from typing import Annotated, NamedTuple, NoReturn

import tyro

from stn.config.schema import Config
from stn.config.validation import validate
from stn.config.yaml_files import LENGTHS, Sections, build_config, overlay, read_yaml

_SEVERAL = ("--lr", "--optim.lr", "--optim.weight-decay")


class Command(Config):
    """Train spatial-transformer networks: one architecture, one data set, any number of seeds.

    Values come from --config FILE (YAML), then from the command line.
    """

    config: str | None = None
    """YAML file to start from; see configs/."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Build everything, print the configuration and the network, and exit."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the names of architectures, networks, data sets and recipes, and exit."""


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def fail(message: object, code: int = 2, everywhere: bool = False) -> NoReturn:
    """Print one message, from the main process unless ``everywhere``, and exit; code 2 means bad input."""
    if everywhere or is_main_process():
        print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def _given(arguments: list[str], *flags: str) -> list[str]:
    """Return the values of a flag, given as --flag VALUE or --flag=VALUE."""
    values = [a.partition("=")[2] for a in arguments if a.partition("=")[0] in flags and "=" in a]
    return values + [b for a, b in pairwise(arguments) if a in flags]


def _config_file(arguments: list[str]) -> str | None:
    files = _given(arguments, "--config")
    if len(files) > 1:
        raise ValueError("give --config once")
    if files == [""]:
        raise ValueError("--config= needs a file")
    return files[0] if files else None


def _expand(arguments: list[str]) -> list[list[str]]:
    """Return one command line per combination of values of --lr 0.01,0.02 and the like."""
    lines = [arguments]
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag.replace("_", "-") not in _SEVERAL:
            continue
        place = i if equals else i + 1
        values = (value if equals else arguments[place] if place < len(arguments) else "").split(",")
        if len(values) == 1:
            continue
        if len(set(values)) < len(values) or "" in values:
            raise ValueError(f"{flag}: '{','.join(values)}' needs different values with commas between")
        prefix = f"{flag}=" if equals else ""
        lines = [[*line[:place], prefix + v, *line[place + 1 :]] for line in lines for v in values]
    return lines


def _parse_one(arguments: list[str]) -> Command:
    path = _config_file(arguments)
    flags = {argument.partition("=")[0] for argument in arguments}
    lengths = {key: None for key in LENGTHS if flags & {f"--{key}", f"--train.{key}"}}  # tyro fills in which
    archs: list[Sections] = [{"arch": {"name": name}} for name in _given(arguments, "--arch", "--arch.name")]
    layers = overlay(read_yaml(path) if path else {}, {"train": lengths}, *archs)
    base = build_config(layers, path or "command line")
    command = tyro.cli(
        Command,
        args=arguments,
        prog="train.py",
        default=Command(**{section: getattr(base, section) for section in Config.model_fields}),
        config=(tyro.conf.AvoidSubcommands,),
        console_outputs=is_main_process(),
    )
    validate(command)
    return command


class Asked(NamedTuple):
    configs: list[Config]
    """One, or one for each combination of values that seeds may have of their own."""
    check: bool
    list: bool


def parse(arguments: list[str]) -> Asked:
    """Return checked configurations; exit with code 2 if the arguments are wrong."""
    try:
        commands = [_parse_one(line) for line in _expand(arguments)]
    except ValueError as error:
        fail(error)
    return Asked(list(commands), commands[0].check, commands[0].list)
