"""What a training command does before torch is imported, so that --help, --list and bad input answer at once."""

import os
import sys

from stn.commands.list import list_names
from stn.config.command_line import Command, fail, parse
from stn.config.seed_list import parse_seeds
from stn.evaluation.pictures.painter import PAINTER
from stn.runs.cores import Neighbours, share_cores


def begin(arguments: list[str], draws: bool) -> tuple[list[Command], Neighbours]:
    """Return the configurations, and who watches the other programs from now on; exit for --list and bad input.

    ``draws``: start the processes that draw, if there is something to draw and more than one core to use."""
    neighbours = share_cores()
    commands = parse(arguments)
    if commands[0].list:
        try:
            sys.exit(list_names(commands[0].list))
        except ValueError as error:
            fail(error)
    first = commands[0]
    several = len(commands) > 1 or len(parse_seeds(first.train.seeds)) > 1
    logs = "disabled" not in (first.log.wandb, os.environ.get("WANDB_MODE"))
    if os.environ.get("WANDB_SWEEP_ID") and logs and several and not first.check:
        fail(
            "the run of a W&B agent has one id, but each seed is a run of its own: "
            "train one seed a call, or use python -m launch sweep"
        )
    if draws and first.log.pictures and not first.check and first.train.threads != 1:
        PAINTER.start()
    return commands, neighbours
