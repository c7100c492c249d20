"""The rows of a claim: copied from run directories, without paths and names of the machine that trained them."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from stn.runs.directory import RunDir, find_runs
from stn.runs.files import read_rows, write_atomic

COLLECTED = ("env.json", "config.yaml", "status.json", "results.jsonl", "metrics.jsonl")
"""Files of a run directory that are copied."""


def digest(folder: Path) -> str:
    """Return the hash of a claim's rows: of all files of its run directories, hidden ones too, and of its record."""
    folder = folder.resolve()
    rows = [path for run in find_runs([str(folder / "runs")]) for path in run.path.rglob("*")]
    files = sorted(path for path in [*rows, folder / "record.json"] if path.is_file())
    lines = [f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def environments(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return what each run of a claim says of its environment, with the run's path in the claim's folder."""
    files = sorted(folder.glob("runs/*/*/*/env.json"))
    return [(file.parent.relative_to(folder).as_posix(), json.loads(file.read_text())) for file in files]


def uncommitted(folder: Path) -> list[str]:
    """Return the runs of a claim that were trained with changes which no commit has."""
    return [run for run, env in environments(folder) if env.get("dirty")]


def without_folders(words: list[str]) -> list[str]:
    """Return a command of train.py without the folders of one machine, those of runs and data."""
    flags, kept = ("--runs", "--log.runs", "--data-root", "--data.root"), ["train.py"]
    for before, word in pairwise(words):
        if word.partition("=")[0] not in flags and before not in flags:
            kept.append(word)
    return kept


def _without_place(run: RunDir) -> dict[str, bytes]:
    """Return the files of a run directory without paths, names of machines and steps of the log."""
    env = {k: v for k, v in json.loads(run.env.read_text()).items() if k not in ("host", "folder", "slurm")}
    env["command"] = without_folders(env["command"])
    config = yaml.safe_load(run.config.read_text())
    config["log"]["runs"], config["data"]["root"] = "runs", None
    evaluations = [row for row in read_rows(run.metrics) if row["kind"] == "eval"]
    status = {key: value for key, value in run.read_status().items() if key not in ("host", "pid")}
    texts = json.dumps(env, indent=1), yaml.safe_dump(config, sort_keys=False), json.dumps(status)
    rows = ["".join(json.dumps(row) + "\n" for row in part) for part in (run.rows().values(), evaluations)]
    return {name: text.encode() for name, text in zip(COLLECTED, [*texts, *rows], strict=True)}


def collect(folder: Path, paths: list[str]) -> None:
    """Copy run directories that have finished, or were stopped with finished seeds, and record the hash."""
    for path in paths:
        run = RunDir(path)
        state = run.read_status().get("state", "unfinished")
        if state not in ("finished", "stopped") or not run.rows():
            raise ValueError(f"{path} is {state}")
        target = folder / "runs" / Path(*run.path.resolve().parts[-3:])
        target.mkdir(parents=True, exist_ok=True)
        for name, content in _without_place(run).items():
            write_atomic(target / name, content)
    file = folder / "claim.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("rows:")]
    file.write_text("\n".join([*lines, f"rows: {digest(folder)}"]) + "\n")
