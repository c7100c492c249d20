"""Checkpoints: one safetensors file per seed and step, complete or invisible.

A file holds weights, optimiser state, and a JSON header with the step, the running sums and
a hash of the tensors. Nothing that is loaded can execute code. Must not know the loop.
"""

import hashlib
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from stn.config.seed_list import parse_seeds
from stn.runs.directory import RunDir
from stn.runs.files import write_atomic

Tensors = dict[str, Tensor]


class Saved(NamedTuple):
    model: Tensors
    optimiser: Tensors
    progress: dict[str, Any]


def digest(tensors: Tensors) -> str:
    """SHA-256 over names, types, shapes and contents, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _write(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(header | {"sha256": digest(tensors)})
    write_atomic(path, save(tensors, metadata={"stn": text}))


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["stn"])
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if digest(tensors) != header["sha256"]:
        raise ValueError(f"{path} is damaged: its contents do not match its hash")
    return tensors, header


def _folder(run: RunDir, seed: int) -> Path:
    return run.checkpoints / f"seed-{seed}"


def _steps(run: RunDir, seed: int) -> dict[int, Path]:
    """Checkpoints of a seed, by step."""
    found = ((re.fullmatch(r"step-(\d+)", p.stem), p) for p in _folder(run, seed).glob("step-*.safetensors"))
    return {int(match[1]): path for match, path in found if match}


def save_seed(run: RunDir, seed: int, step: int, saved: Saved, keep: int) -> None:
    """Write a checkpoint, then drop the oldest of those that are no newer."""
    tensors = {f"model/{k}": v for k, v in saved.model.items()} | {f"optim/{k}": v for k, v in saved.optimiser.items()}
    _write(_folder(run, seed) / f"step-{step:08d}.safetensors", tensors, {"step": step, **saved.progress})
    steps = _steps(run, seed)
    for old in sorted(known for known in steps if known <= step)[:-keep]:
        steps[old].unlink(missing_ok=True)


def _load_step(run: RunDir, seed: int, step: int) -> Saved:
    tensors, progress = _read(_steps(run, seed)[step])
    parts: dict[str, Tensors] = {"model": {}, "optim": {}}
    for name, tensor in tensors.items():
        kind, _, key = name.partition("/")
        parts[kind][key] = tensor
    return Saved(parts["model"], parts["optim"], progress)


def saved_steps(run: RunDir, seed: int) -> set[int]:
    """The steps that a seed can go on from; none of a save that a kill has cut short, or its block would part."""
    status = run.read_status()
    if seed not in parse_seeds(status.get("seeds", str(seed))):  # it speaks of another block
        return set(_steps(run, seed))
    whole = status.get("step", 0 if status.get("state") == "running" else math.inf)
    return {step for step in _steps(run, seed) if step <= whole}


def load_newest(places: list[tuple[RunDir, int]]) -> list[Saved]:
    """The newest step that every seed has undamaged; nothing where there is none."""
    common = set.intersection(*(saved_steps(run, seed) for run, seed in places))
    for step in sorted(common, reverse=True):
        try:
            return [_load_step(run, seed, step) for run, seed in places]
        except ValueError as error:
            warnings.warn(f"{error}; falling back to the checkpoint before it", stacklevel=2)
    return []


def save_final(run: RunDir, seed: int, model: Tensors) -> None:
    _write(_folder(run, seed) / "final.safetensors", model, {})


def load_final(run: RunDir, seed: int) -> Tensors:
    path = _folder(run, seed) / "final.safetensors"
    if not path.exists():
        raise ValueError(f"{path} is missing; seed {seed} of {run.path} is not finished")
    return _read(path)[0]


def drop_steps(run: RunDir, seed: int, after: int = -1) -> None:
    """Forget later checkpoints than the one that a block went on from; all where the seed is finished."""
    for step, path in _steps(run, seed).items():
        if step > after:
            path.unlink(missing_ok=True)


def drop_torn(run: RunDir) -> None:
    """Temporary files that a killed process left behind."""
    for place in (".*.tmp", "pictures/.*.tmp", "checkpoints/*/.*.tmp"):
        for path in run.path.glob(place):
            path.unlink(missing_ok=True)
