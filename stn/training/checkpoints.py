"""Checkpoint files: one safetensors file per seed and step, complete or invisible.

    checkpoints/seed-<n>/
        step-<n>.safetensors    weights, optimiser and, where it is kept, the best evaluation's weights; to resume from
        best.safetensors        weights of the best evaluation (--checkpoint.keep-best)
        final.safetensors       weights at the end

A JSON header has the file's signature, seed and step, the running metrics, and hashes of the tensors and of itself; a
file under another's name is refused like a damaged one. Nothing that is loaded can execute code.
"""

import hashlib
import json
import math
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from stn.config.seed_list import parse_seeds
from stn.runs.directory import Row, RunDir
from stn.runs.records import hash_of
from stn.tracking.console import warn

Tensors = dict[str, Tensor]


class SeedCheckpoint(NamedTuple):
    """What one seed resumes from."""

    model: Tensors
    optim: Tensors
    best: Tensors
    """Weights at the best evaluation; empty where they are not kept."""
    header: dict[str, Any]


def digest(tensors: Tensors) -> str:
    """Return the SHA-256 of names, types, shapes and contents, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _file(run: RunDir, seed: int, name: str) -> Path:
    return run.checkpoints / f"seed-{seed}" / f"{name}.safetensors"


def _step_files(run: RunDir, seed: int) -> dict[int, Path]:
    """Return the checkpoints of a seed by step."""
    paths = _file(run, seed, "").parent.glob("step-*.safetensors")
    return {int(path.stem[5:]): path for path in paths if path.stem[5:].isdigit()}


def _identity(run: RunDir, seed: int, name: str) -> dict[str, Any]:
    """Return what the header of a file with this name must say."""
    return ({"sig": run.sig} if run.sig else {}) | {"seed": seed, "file": name}


def save_weights(run: RunDir, seed: int, name: str, tensors: Tensors, header: dict[str, Any] | None = None) -> bool:
    """Write tensors of a seed as best, final or step-<n>, unless the lease is lost; return whether that was done."""
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    header = (header or {}) | _identity(run, seed, name) | {"sha256": digest(tensors)}
    text = json.dumps(header | {"header_sha256": hash_of(json.loads(json.dumps(header)))})
    return run.replace(_file(run, seed, name), save(tensors, metadata={"stn": text}))


def _read(run: RunDir, seed: int, name: str) -> tuple[Tensors, dict[str, Any]]:
    path = _file(run, seed, name)
    try:
        with safe_open(path, "pt") as file:
            header = dict(json.loads((file.metadata() or {})["stn"]))
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!s:.200}") from None
    # Older files have neither a hash of their header nor an identity.
    if header.pop("header_sha256", None) not in (None, hash_of(header)) or header.get("sha256") != digest(tensors):
        raise ValueError(f"{path} is damaged: its contents do not match its hash")
    for key, expected in _identity(run, seed, name).items():
        if header.get(key, expected) != expected:
            raise ValueError(f"{path} is another file under this name: its {key} is {header[key]}, not {expected}")
    return tensors, header


def save_seed(run: RunDir, seed: int, step: int, checkpoint: SeedCheckpoint, keep: int) -> None:
    """Write a checkpoint, then delete the oldest of those up to this step, until ``keep`` are left."""
    parts = checkpoint._asdict()
    header = {"step": step, **parts.pop("header")}
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    if not save_weights(run, seed, f"step-{step:08d}", tensors, header):
        return
    files = _step_files(run, seed)
    for old in sorted(saved for saved in files if saved <= step)[:-keep]:
        files[old].unlink(missing_ok=True)


def shapes_of(model: Tensors, optim: Tensors) -> list[dict[str, torch.Size]]:
    return [{name: tensor.shape for name, tensor in named.items()} for named in (model, optim)]


def _load_step(run: RunDir, seed: int, step: int, shapes: list[dict[str, torch.Size]] | None) -> SeedCheckpoint:
    tensors, header = _read(run, seed, f"step-{step:08d}")
    checkpoint = SeedCheckpoint({}, {}, {}, header)
    for full_name, tensor in tensors.items():
        part, _, name = full_name.partition("/")
        getattr(checkpoint, part)[name] = tensor
    if header.get("step") != step or shapes not in (None, shapes_of(checkpoint.model, checkpoint.optim)):
        raise ValueError(f"{_file(run, seed, f'step-{step:08d}')} is of another step or network")
    return checkpoint


def saved_steps(run: RunDir, seed: int) -> set[int]:
    """Return the steps that a seed can resume from, without those that were saved for a part of its block only."""
    status, steps = run.read_status(), set(_step_files(run, seed))
    if seed not in parse_seeds(status.get("seeds", str(seed))):  # the status is another block's
        return steps
    last_complete = status.get("step", 0 if status.get("state") == "running" else math.inf)
    return {step for step in steps if step <= last_complete}


def load_newest(
    members: list[tuple[RunDir, int]], shapes: list[dict[str, torch.Size]] | None = None
) -> list[SeedCheckpoint]:
    """Return the checkpoints of the newest step that every seed has undamaged; an empty list if there is none.

    ``shapes`` are those of one seed's network and optimiser: older files do not say whose they are.
    """
    common = set.intersection(*(saved_steps(run, seed) for run, seed in members))
    for step in sorted(common, reverse=True):
        try:
            return [_load_step(run, seed, step, shapes) for run, seed in members]
        except ValueError as error:
            warn(f"{error}; falling back to the checkpoint before it")
    return []


def load_final(run: RunDir, row: Row) -> Tensors:
    """Return the final weights behind a result row."""
    seed = row["seed"]
    path = _file(run, seed, "final")
    if not path.exists():
        raise ValueError(f"{path} is missing: seed {seed} of {run.path} is not finished; run its command again")
    tensors, header = _read(run, seed, "final")
    if row.get("weights_sha256", header["sha256"]) != header["sha256"]:
        raise ValueError(f"{path} is not what seed {seed} of {run.path} was scored with: weights_sha256 differs")
    return tensors


def load_best(run: RunDir, seed: int, epoch: float) -> Tensors:
    """Return the weights in best.safetensors; none if they are of another epoch, damaged or missing."""
    with suppress(ValueError):
        tensors, header = _read(run, seed, "best")
        return tensors if header.get("epoch") == epoch else {}
    return {}


def drop_steps(run: RunDir, seed: int, after: int = -1) -> None:
    """Delete the checkpoints of later steps: a resumed block trains these again. By default delete all."""
    for step, path in _step_files(run, seed).items():
        if step > after:
            path.unlink(missing_ok=True)


def drop_temporary_files(run: RunDir, has_lease: bool = True) -> None:
    """Delete the temporary files of killed processes; without the lease only those whose writer has ended."""
    for folder in (".", ".rows", ".claim", "pictures", "pictures/evaluations/*", "predictions", "checkpoints/*"):
        everyone = has_lease and folder != ".claim"  # processes that wait for the lease write there
        for path in run.path.glob(f"{folder}/.*.tmp"):
            if everyone or _writer_is_gone(path):
                path.unlink(missing_ok=True)


def _writer_is_gone(temporary: Path) -> bool:
    """Whether a temporary file is of a process of this machine that has ended, or of this one."""
    match = re.fullmatch(rf".*\.{re.escape(socket.gethostname())}-(\d{{1,9}})(-\d+)?\.tmp", temporary.name)
    return match is not None and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1])))
