"""python -m stn COMMAND, installed as stn: train, look at finished runs, and at what could be trained."""

import os
import signal
import sys
from importlib import import_module

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports leaves no traceback

COMMANDS = {
    "train": "train one architecture, in this process: train.py",
    "check": "build a network and print it, with the arguments of train",
    "list": "print architectures, networks, data sets and recipes, or architectures that match a pattern",
    "evaluate": "evaluate a finished run again, or weights from anywhere",
    "show": "draw the pictures of a finished run again",
    "export": "write weights, model card and ONNX of a finished network",
}
LAUNCH = ("sweep", "status", "retry", "report", "wandb-sync")
"""Commands of the other package, for a hint."""


def main(words: list[str]) -> int:
    from stn.config.command_line import fail  # here, so that run() listens before anything slow is imported
    from stn.config.flags.launcher import drop_arithmetic
    from stn.config.registry import nearest

    if not words or words[0] in ("-h", "--help"):
        print("usage: stn COMMAND ...   (or python -m stn COMMAND ...)\n")
        for name, text in COMMANDS.items():
            print(f"  {name:10s}{text}")
        print("\nSweeps, their status and reports, and trainings in many processes: stn-launch, or python -m launch.")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        hint = f"that is stn-launch {words[0]}" if words[0] in LAUNCH else nearest(words[0], COMMANDS)
        fail(f"no command '{words[0]}'; {hint}")
    if words[0] not in ("train", "check"):  # these say so themselves
        for text in drop_arithmetic(os.environ):
            print(f"warning: {text}")
    if words[0] == "check":
        words = ["train", "--check", *words[1:]]
    try:
        module = import_module(f"stn.commands.{words[0]}")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return module.main(words[1:])
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted", code=130)


def run() -> int:
    """Run the installed command; Ctrl-C during its imports leaves no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
