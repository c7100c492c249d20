"""What identifies an experiment."""

import hashlib
import json

from stn.config.schema import Config

_NOT_SCIENCE = {
    "data": {"root"},
    "optim": {"accumulate"},
    "train": {
        *("seeds", "epochs", "fraction", "compile", "cuda_graph", "parallel"),
        *("fuse", "processes", "threads", "time_limit"),
    },
    "eval": {"batch_size"},
}


def signature(config: Config) -> str:
    """Return the hash of every resolved field that can change the result."""
    assert config.train.steps is not None, "only a resolved configuration has a signature"
    science = config.model_dump(mode="json", exclude={"checkpoint": True, "log": True, **_NOT_SCIENCE})
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:12]
