"""Where the repository and the optional data set are."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CIFAR = next(
    (
        folder
        for folder in (Path(os.environ.get("STN_DATA", "data")), ROOT / "data", ROOT.parent / "shared" / "data")
        if (folder / "cifar-10-batches-bin" / "test_batch.bin").is_file()
    ),
    None,
)
"""The folder with CIFAR-10; None if it is not on this machine."""
needs_cifar = pytest.mark.skipif(CIFAR is None, reason="no CIFAR-10 on this machine (STN_DATA names its folder)")
