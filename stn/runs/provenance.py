"""What a run was made with: versions, machine, commit, command line."""

import json
import os
import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "safetensors", "pydantic", "tyro", "wandb")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> dict[str, Any]:
    """Return the commit of this code, and whether the working tree has changes."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def environment_json(**more: Any) -> str:
    """Return the contents of env.json."""
    facts = {
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        **commit(),
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "slurm": {k: v for k, v in os.environ.items() if k.startswith("SLURM_JOB_ID") or k.startswith("SLURM_ARRAY")},
    }
    return json.dumps(facts | more, indent=1) + "\n"
