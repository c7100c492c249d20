"""stn train and stn check: run train.py, of a clone or of an installed package, in this process."""

import runpy
import sys
from typing import NoReturn

from stn.config.source import TRAIN


def main(arguments: list[str]) -> NoReturn:
    """Run train.py with these arguments, and exit as it does."""
    sys.argv = [str(TRAIN), *arguments]
    runpy.run_path(str(TRAIN), run_name="__main__")
    raise SystemExit
