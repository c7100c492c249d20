"""python -m launch train [ARGUMENTS OF train.py]: on this machine, with as many processes as help.
python -m launch wandb-sync PATH...: run directories to W&B, from a machine that reaches it."""

import sys

from launch import wandb_sync
from launch.local import train
from stn.cli import fail

if __name__ == "__main__":
    if sys.argv[1:2] == ["wandb-sync"]:
        sys.exit(wandb_sync.main(sys.argv[2:]))
    if sys.argv[1:2] != ["train"]:
        fail("usage: python -m launch train [arguments of train.py; --help shows them], or wandb-sync PATH...")
    train(sys.argv[2:])
