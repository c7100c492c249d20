"""python -m stn evaluate|show|export: look at finished runs."""

import sys
from importlib import import_module

from stn.config.command_line import fail

COMMANDS = ("evaluate", "show", "export")


def main(words: list[str]) -> int:
    if not words or words[0] not in COMMANDS:
        fail(f"usage: python -m stn {'|'.join(COMMANDS)} ...")
    try:
        return import_module(f"stn.commands.{words[0]}").main(words[1:])
    except (ValueError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
