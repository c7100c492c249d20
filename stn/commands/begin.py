"""What a training command does before torch is imported, so that --help, --list and bad input answer at once."""

import sys

from stn.commands.list import list_names
from stn.config.command_line import Command, parse
from stn.evaluation.pictures.painter import PAINTER
from stn.runs.cores import Neighbours, share_cores


def begin(arguments: list[str], draws: bool) -> tuple[list[Command], Neighbours]:
    """Return the configurations, and who watches the other programs from now on; exit for --list and bad input.

    ``draws``: start the processes that draw, if there is something to draw and more than one core to use."""
    neighbours = share_cores()
    commands = parse(arguments)
    if commands[0].list:
        sys.exit(list_names())
    first = commands[0]
    if draws and first.log.pictures and not first.check and first.train.threads != 1:
        PAINTER.start()
    return commands, neighbours
