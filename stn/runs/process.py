"""This process: the parent that it must not outlive, and what env.json records of it."""

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stn.config.source import INSTALLED, SOURCE, VERSION

PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "safetensors", "pydantic", "tyro", "wandb")


def follow_parent(parent: int) -> None:
    """Have this process sent SIGTERM when its parent dies (Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # dead already
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


SITE = "slurm/env.sh"


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: large batches otherwise pay page faults at every step."""
    if sys.platform == "linux":
        m_trim_threshold, m_mmap_max = -1, -4
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def gpus_promised() -> bool:
    """Whether the environment names GPUs for this process: the user's, a worker's or Slurm's."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("SLURM_GPUS_ON_NODE", ""))
    return names not in ("", "-1", "NoDevFiles")  # the last is what older Slurms write for none


def commit() -> dict[str, Any]:
    """Return the commit of this code, and whether the working tree has changes; None where git cannot tell.

    An installed package has none: a repository around its environment is another project's. The file that a site edits
    does not count.
    """
    if SOURCE == INSTALLED:
        return {"commit": None, "dirty": None}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=SOURCE, capture_output=True, timeout=10, check=True, text=True
        ).stdout

    try:
        changed = git(
            "--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){SITE}"
        )
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # W&B, where it is not used
        return None


STAGE = ("device", "device_name", "world_size", "kernels", "commit", "dirty", "packages")
"""What a run that resumes keeps of where it was trained before, in the list "earlier"."""


def environment_json(before: dict[str, Any], **more: Any) -> str:
    """Return the contents of env.json; ``before`` are those of a run that was begun."""
    facts = {
        "python": platform.python_version(),
        "packages": {"stn-harness": VERSION} | {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        **commit(),
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "slurm": {k: v for k, v in os.environ.items() if k.startswith(("SLURM_JOB_ID", "SLURM_ARRAY"))},
    }
    facts |= more
    stage, kept = {key: before[key] for key in STAGE if key in before}, before.get("earlier")
    earlier = kept if isinstance(kept, list) else []
    if any(facts.get(key) != value for key, value in stage.items()):
        earlier = [*earlier, stage]
    return json.dumps(facts | ({"earlier": earlier} if earlier else {}), indent=1) + "\n"
