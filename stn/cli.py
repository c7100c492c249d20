"""The command line: YAML first, flags over it, one clear message and exit code 2 for bad input.

Must not know torch: ``--help`` and a typo answer at once.
"""

import os
import sys
from itertools import pairwise
from typing import Annotated, NamedTuple, NoReturn

import tyro

from stn.config import load_yaml, parse_seeds
from stn.schema import Config

_SEVERAL = ("--lr", "--optim.lr", "--optim.weight-decay")
_EXCLUSIVE = ({"epochs", "train.epochs"}, {"steps", "train.steps"})


class Command(Config):
    """Train spatial-transformer networks: one architecture, one data set, any number of seeds.

    Values come from --config FILE (YAML), then from the command line.
    """

    config: str | None = None
    """YAML file to start from; see configs/."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Build everything, print the configuration and the network, and leave."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the names of architectures, networks, data sets and recipes, and leave."""


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def fail(message: object, code: int = 2, everywhere: bool = False) -> NoReturn:
    """One message (from one process, unless it may be this one's alone) and an exit code; 2: the user's mistake."""
    if everywhere or is_main_process():
        print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def _config_file(arguments: list[str]) -> str | None:
    files = [a.partition("=")[2] for a in arguments if a.startswith("--config=")]
    files += [b for a, b in pairwise(arguments) if a == "--config"]
    if len(files) > 1:
        raise ValueError("give --config once")
    if files == [""]:
        raise ValueError("--config= needs a file")
    return files[0] if files else None


def _check(config: Config) -> None:
    """Combinations that no single field can judge."""
    optim, data, train = config.optim, config.data, config.train
    parse_seeds(train.seeds)
    if train.epochs is not None and train.steps is not None:
        raise ValueError("give epochs or steps, not both")
    if optim.name == "adamw" and optim.momentum is not None:
        raise ValueError("optim.name adamw takes no momentum; it has optim.betas")
    if optim.nesterov and (optim.name != "sgd" or optim.momentum == 0):
        raise ValueError("optim.nesterov needs optim.name sgd and a momentum above 0")
    if optim.schedule == "multistep" and not optim.milestones:
        raise ValueError("optim.schedule multistep needs optim.milestones")
    if optim.accumulate > data.batch_size:
        raise ValueError(f"optim.accumulate {optim.accumulate} exceeds batch_size {data.batch_size}")
    if not 0 < data.scale[0] <= data.scale[1]:
        raise ValueError(f"data.scale needs two rising numbers above 0, got {data.scale}")
    if train.precision == "fp16" and train.fuse not in ("auto", 1):
        raise ValueError("fp16 cannot fuse seeds: one seed's overflow would skip a step of all; use bf16")


def _expand(arguments: list[str]) -> list[list[str]]:
    """One command line for each combination of the values of --lr 0.01,0.02 and the like."""
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
    base = load_yaml(path) if path else Config()
    given = {argument.partition("=")[0].removeprefix("--") for argument in arguments}
    if path and given & _EXCLUSIVE[0] and not given & _EXCLUSIVE[1]:
        base = base.model_copy(update={"train": base.train.model_copy(update={"steps": None})})
    elif path and given & _EXCLUSIVE[1] and not given & _EXCLUSIVE[0]:
        base = base.model_copy(update={"train": base.train.model_copy(update={"epochs": None})})
    command = tyro.cli(
        Command,
        args=arguments,
        prog="train.py",
        default=Command(**{section: getattr(base, section) for section in Config.model_fields}),
        config=(tyro.conf.AvoidSubcommands,),
        console_outputs=is_main_process(),
    )
    _check(command)
    return command


class Asked(NamedTuple):
    configs: list[Config]
    """One, or one for each combination of values that seeds may have of their own."""
    check: bool
    list: bool


def parse(arguments: list[str]) -> Asked:
    """Arguments to checked configurations; leaves with exit code 2 where they are wrong."""
    try:
        commands = [_parse_one(line) for line in _expand(arguments)]
    except ValueError as error:
        fail(error)
    return Asked(list(commands), commands[0].check, commands[0].list)
