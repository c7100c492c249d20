"""One process of a peer, which peers.py starts for each measurement: the protocol, and MNIST as arrays.

The argument is a JSON object that names the peer. The process trains a few hundred steps and tests the network: its
result. Then it prints "ready", trains on in its turns (turns.py) within the same loop, and answers with a line of JSON.
Nothing here imports torch, so that JAX need not wait for it.
"""

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from turns import Turns

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that stn is found from any working directory

BATCH, LR, LIMIT_DEGREES = 64, 0.01, 90
MEAN, STD = 0.1307, 0.3081
TESTED = 2_000
"""Test images of a result."""


def load(root: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST's bytes [N, 28, 28] and labels [N] from the files that torchvision unpacks."""
    folder, part = Path(root) / "MNIST" / "raw", "train" if train else "t10k"
    images = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)
    labels = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:]
    return (images, labels) if train else (images[:TESTED], labels[:TESTED])


class Meter:
    """Counts the steps of a loop: first those to the result, then those of its turns."""

    def __init__(self, job: dict[str, Any], result: Callable[[], list[float]]) -> None:
        self._result, self._left = result if job["tested"] else list, job["steps"]
        self._turns = Turns(job["seconds"], job["answers"])
        self.accuracy: list[float] = []
        self.cpu_s = 0.0
        """CPU time of this process up to its result."""

    def enough(self, images: int, wait: Callable[[], Any] = lambda: None) -> bool:
        """Count a step of so many images and return whether to stop; ``wait`` ends work that still runs."""
        if self._left == 0:
            return self._turns.enough(images, wait)
        self._left -= 1
        if self._left:
            return False
        wait()
        self.accuracy, self.cpu_s = self._result(), time.process_time()
        return not self._turns.wait()


def main(job: dict[str, Any], answers: TextIO = sys.stdout) -> dict[str, Any]:
    if job["threads"] == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    module = import_module("peer_jax" if job["kind"] == "jax" else "peer_torch")
    meter: Meter = module.train(job | {"answers": answers})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"accuracy": meter.accuracy, "result_cpu_s": meter.cpu_s, "peak_mb": peak / 1e6}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning advises more loader workers, which are slower for data in memory
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    os.environ |= {"ACCELERATE_USE_CPU": "true", "JAX_PLATFORMS": "cpu"}
    print(json.dumps(main(json.loads(sys.argv[1]), answers)), file=answers, flush=True)
    os._exit(0)  # PyTorch's own end takes two seconds
