"""The losses of two steps of every architecture on every data set that is made from MNIST, in float64.

A change of these numbers is a change of what is trained. Write them anew (python -m tests.golden.make) only with an
edit that is meant to change them, and say so in CHANGELOG.md: results of before and after cannot be averaged. A new
architecture or data set only adds lines; those of CIFAR-10 are kept where STN_DATA does not name it.
"""

import importlib
import runpy
import sys
from pathlib import Path
from unittest.mock import patch

from stn.config import registry
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim, Train
from stn.training import fingerprint as fingerprints
from tests.support.paths import CIFAR, ROOT

FILE = Path(__file__).with_name("losses.json")
OPTIM = Optim(name="sgd", lr=0.01, momentum=0.9, schedule="constant")


def configurations() -> dict[str, Config]:
    """Return every architecture on every data set, where its usual network has that architecture."""
    importlib.import_module("stn.models.nets")
    found = {}
    for data, entry in registry.entries["dataset"].items():
        if not entry.function.__module__.startswith("stn.") or (build_dataset(data).side == 32 and CIFAR is None):
            continue
        root = str(CIFAR) if build_dataset(data).side == 32 else None
        for arch, written in registry.entries["arch"].items():
            if written.function.__module__.startswith("stn."):
                values = {"arch": Arch(name=arch), "data": Data(name=data, root=root, batch_size=2), "optim": OPTIM}
                found[f"{arch} {data}"] = Config(**values, train=Train(steps=2))
    return found


def losses() -> dict[str, list[float]]:
    """Return the losses of seed 0 on two images a step."""
    argv, sys.argv = sys.argv, ["train.py"]
    try:
        seed_losses = runpy.run_path(str(ROOT / "train.py"), run_name="loop")["seed_losses"]
    finally:
        sys.argv = argv
    found = {}
    with patch.object(fingerprints, "_rounded", float):  # a fingerprint has 8 digits
        for name, config in configurations().items():
            found[name] = fingerprints.fingerprint(resolve(config), seed_losses)["loss"]
    return found
