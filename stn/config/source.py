"""The version, and where train.py, configs/ and slurm/ are, in a clone or in an installed package."""

from pathlib import Path

VERSION = "0.1.0"
INSTALLED = Path(__file__).parents[1] / "files"
"""The folder where setup.py puts them in the wheel; a clone has none."""
SOURCE = INSTALLED if INSTALLED.is_dir() else INSTALLED.parents[1]
TRAIN = SOURCE / "train.py"
