"""The terminal: one console, from one process."""

import os
import sys

from rich.console import Console

from stn.config.command_line import is_main_process

_knows_width = sys.stdout.isatty() or "COLUMNS" in os.environ
console = Console(quiet=not is_main_process(), width=None if _knows_width else 160)  # rich takes 80 for a file's width


def say(text: str) -> None:
    """Print a line, from the main process only."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    say(f"warning: {text}")
