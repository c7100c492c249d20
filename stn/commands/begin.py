"""What a training command does before torch is imported, so that --help, --list and bad input answer at once."""

import sys

from stn.commands.list import list_names
from stn.config.command_line import Command, parse
from stn.evaluation.pictures.painter import PAINTER
from stn.runs.cores import Neighbours, share_cores


def begin(arguments: list[str]) -> tuple[list[Command], Neighbours]:
    """Return the configurations, and who watches the other programs from now on; exit for --list and bad input."""
    neighbours = share_cores()
    commands = parse(arguments)
    if commands[0].list:
        sys.exit(list_names())
    if commands[0].log.pictures and not commands[0].check:
        PAINTER.start()
    return commands, neighbours
