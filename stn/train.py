"""train.py as a module: python -m stn.train, and accelerate launch -m stn.train."""

import sys

from stn.commands.train import main

if __name__ == "__main__":
    main(sys.argv[1:])
