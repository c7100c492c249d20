"""python -m stn COMMAND: look at finished runs, and at what could be trained."""

import signal
import sys
from importlib import import_module

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports leaves no traceback
from stn.config.command_line import fail

COMMANDS = {
    "evaluate": "evaluate a finished run again, or weights from anywhere",
    "show": "draw the pictures of a finished run again",
    "export": "write weights, model card and ONNX of a finished network",
    "check": "build a network and print it, with the arguments of train.py",
    "list": "print architectures, networks, data sets and recipes",
}


def main(words: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not words or words[0] in ("-h", "--help"):
        print("usage: python -m stn COMMAND ...\n")
        for name, text in COMMANDS.items():
            print(f"  {name:10s}{text}")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        fail(f"no command '{words[0]}'; python -m stn has {', '.join(COMMANDS)}")
    try:
        return import_module(f"stn.commands.{words[0]}").main(words[1:])
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted", code=130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
