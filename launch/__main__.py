"""python -m launch train [ARGUMENTS OF train.py]: on this machine, with as many processes as help."""

import sys

from launch.local import train
from stn.cli import fail

if __name__ == "__main__":
    if sys.argv[1:2] != ["train"]:
        fail("usage: python -m launch train [arguments of train.py; --help shows them]")
    train(sys.argv[2:])
