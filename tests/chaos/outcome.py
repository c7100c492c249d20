"""What a finished run directory holds, and in what it differs from that of an undisturbed run."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from stn.runs.directory import RunDir
from stn.runs.predictions import faults
from stn.training.checkpoints import digest

CLOCK = ("wall_s", "images_per_s", "row_sha256")
"""Fields that a clock decides."""
SECRETS = {
    name: f"secret-{name.lower()}-0123456789abcdef0123456789abcdef"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN")
}
"""Variables of the environment whose values no file may hold."""


def _without_clock(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in CLOCK}


def _parsed(line: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    return row if isinstance(row, dict) else {"damaged": line}


def _digest(path: Path) -> str:
    try:
        return digest(load_file(path))
    except (SafetensorError, OSError):
        return "damaged"


def leaks(folder: Path) -> list[str]:
    """Return the files below a folder that hold a secret of the environment."""
    files = [(path, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.name for path, content in files if any(value.encode() in content for value in SECRETS.values())]


@dataclass
class Outcome:
    """What a finished run directory and its log hold, without clocks."""

    results: list[dict]
    metrics: list[dict]
    files: list[str]
    weights: dict[int, str] = field(default_factory=dict)
    """Hash of each seed's final weights, read from their file."""
    leaks: list[str] = field(default_factory=list)
    """Files that hold a secret."""
    log: str = ""
    answers: list[str] = field(default_factory=list)
    """What is wrong with the files in predictions/."""

    @classmethod
    def read(cls, runs: Path) -> "Outcome":
        found = [path for path in runs.glob("*/*/*") if path.is_dir()]
        if not found:
            return cls([], [], [], log=read_log(runs))
        (run,) = found

        def rows(name: str) -> list[dict]:
            lines = (run / name).read_text().splitlines() if (run / name).exists() else []
            return [_without_clock(_parsed(line)) for line in lines]

        files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        weights = {int(path.parent.name[5:]): _digest(path) for path in run.rglob("final.safetensors")}
        return cls(
            rows("results.jsonl"), rows("metrics.jsonl"), [f for f in files if not f.startswith(".claim")],
            weights, leaks(run), read_log(runs), faults(run, RunDir(run).rows()),
        )  # fmt: skip

    def of(self, seed: int) -> "Outcome":
        """Return what is here of one seed, and the names of all files."""
        results, metrics = ([row for row in rows if row.get("seed") == seed] for rows in (self.results, self.metrics))
        return replace(self, results=results, metrics=metrics)

    def faults(self, expected: "Outcome") -> list[str]:
        """Return in what this differs from an undisturbed run."""
        found = []
        seeds = [row.get("seed") for row in self.results]
        if lost := {row["seed"] for row in expected.results} - set(seeds):
            found.append(f"rows lost: {sorted(lost)}")
        if len(set(seeds)) < len(seeds):
            found.append("rows doubled")
        if self.results != expected.results:
            found.append("rows differ")
        said = {row["seed"]: row["weights_sha256"] for row in self.results if {"seed", "weights_sha256"} <= row.keys()}
        if wrong := sorted(seed for seed, sha256 in said.items() if self.weights.get(seed) != sha256):
            found.append(f"weights are not those of the rows: {wrong}")
        found += self.answers
        if len(self.metrics) != len(expected.metrics):
            found.append(f"{len(self.metrics)} rows of metrics instead of {len(expected.metrics)}")
        elif self.metrics != expected.metrics:
            found.append("metrics differ")
        if extra := set(self.files) - set(expected.files):
            found.append(f"left over: {', '.join(sorted(extra))}")
        if missing := set(expected.files) - set(self.files):
            found.append(f"missing: {', '.join(sorted(missing))}")
        if self.leaks:
            found.append(f"a secret in {', '.join(self.leaks)}")
        if "Traceback" in self.log:
            found.append("a traceback")
        return found


def read_log(runs: Path) -> str:
    """Return what the processes that trained into ``runs`` have printed."""
    path = runs.with_name(f"{runs.name}.log")
    return path.read_text(errors="replace") if path.exists() else ""
