"""Run directories for W&B, their upload, and what of them is on a server."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Log
from stn.config.yaml_files import dump_yaml
from stn.runs.directory import Row, RunDir
from tests.support.paths import ROOT
from tests.support.trainer import environment

if TYPE_CHECKING:
    from tests.support.wandb_server import WandbServer


def config(**log_fields) -> Config:
    return resolve(Config(arch=Arch(name="stn_cx"), log=Log(name="exp", **log_fields)))


def rows_of(seed: int, last: int, first: int = 0) -> list[Row]:
    """Rows as a training logs them: every 50 steps, with an evaluation, transforms and poses every 100."""
    rows: list[Row] = []
    for step in range(50, last + 1, 50):
        at = {"seed": seed, "step": step, "epoch": step / 100}
        rows.append({"kind": "train", **at, "loss": 1.0 / step + seed, "acc": 0.5, "lr": 0.1, "images_per_s": 1e4})
        if step % 100 == 0:
            rows.append({"kind": "eval", **at, "test_acc": 0.9, "test_loss": 0.2, "test_count": 300})
            rows.append({"kind": "warp", **at, "theta": [[1.0, 0.0]]})
            rows.append({"kind": "pose", **at, "degrees": {"applied": [1.0], "predicted": [0.5]}})
    return [row for row in rows if row["step"] > first]


def result_of(seed: int, status: str = "finished") -> Row:
    return {
        "seed": seed,
        "status": status,
        "test_acc": 0.9,
        "reason": None,
        "per_class_acc": [0.9],
        "sig": "abcabcabcabc",
    }


def record(
    tmp_path: Path, last: dict[int, int], done: tuple[int, ...] = (), block: str = "0-7", **log_fields
) -> RunDir:
    """A run directory whose seeds have come to these steps."""
    run = RunDir(tmp_path / "runs" / "exp" / "abcabcabcabc" / block)
    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text(dump_yaml(config(**log_fields)))
    run.metrics.write_text("")
    for seed, step in last.items():
        run.add_metrics(rows_of(seed, step))
    for seed in done:
        run.add_results([result_of(seed)])
    return run


def history(server: "WandbServer", seed: int) -> list[tuple[int, str]]:
    """Return step and kind of each row that the server has of a seed."""
    rows = server.runs[f"exp-abcabcabcabc-{seed}"].rows
    return [(row["global_step"], "eval" if "test_acc" in row else "train") for row in rows]


def whole(last: int) -> list[tuple[int, str]]:
    return [(row["step"], row["kind"]) for row in rows_of(0, last) if row["kind"] in ("train", "eval")]


def requests(server: "WandbServer") -> set[str]:
    """Return which of these operations were requested since the last call."""
    seen = {operation for operation, _ in server.requests} & {"Runs", "UpsertBucket", "file_stream"}
    server.requests.clear()
    return seen


def launch(*paths: Path, **env: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "launch", "wandb-sync", *map(str, paths)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment(**env), timeout=240)
