"""The rows of the recipes' finished runs: matched with a recipe, collected, and read back."""

import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from launch.report.analysis.published import PublishedResult, published_results, training_signature
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_rows, write_atomic

CONFIGS = Path(__file__).parent.parent / "configs"
ROWS = Path(__file__).parent / "results" / "reproduction"


def rows_file(recipe: str) -> Path:
    """Return the file of a recipe's collected rows."""
    return ROWS / f"{recipe}.jsonl"


def recipe_of(config: Config) -> tuple[str, dict[str, Any] | None]:
    """Return the recipe that a run follows, whole or shortened, in any precision, and a published result's options."""
    named = CONFIGS / f"{config.log.name}.yaml"
    known = [(str(config.log.name), None, load_yaml(named))] if named.is_file() else []
    known += [(result.recipe, result.options, result.config()) for result in published_results()]
    candidates = []
    for name, options, whole in known:
        if whole.data.name == config.data.name:
            part = config.train.steps / resolve(whole).train.steps  # type: ignore[operator]
            update = {"fraction": min(part, 1.0), "precision": config.train.precision}
            same = whole.model_copy(update={"train": whole.train.model_copy(update=update)})
            if training_signature(resolve(same)) == training_signature(resolve(config)):
                candidates.append((part, name, options))
    if not candidates:
        raise ValueError(f"{config.log.name} does not follow any recipe that is now in configs/")
    _, name, options = max(candidates, key=lambda candidate: candidate[0])
    return name, options


def identity_of(row: Row) -> tuple:
    """Return the identity of a row; a newer row with the same identity replaces it."""
    options = row.get("options") or {}
    overrides = " ".join(f"{key}={value}" for section in options.values() for key, value in section.items())
    return row["arch"], row["net"], overrides, row["steps"], row["seed"]


LEARNT = 0.1
"""Error of the plain network below which a shorter schedule counts as run."""


def finished_rows(recipe: str) -> list[Row]:
    """Return the finished rows of a recipe, of each network those with the most steps.

    A schedule shortened so far that the plain network (or, without one, the mean) has hardly learnt says nothing.
    """
    rows = [row for row in read_rows(rows_file(recipe)) if row["status"] == "finished"]
    most: dict[tuple, int] = {}
    for row in rows:
        kind = identity_of(row)[:3]
        most[kind] = max(most.get(kind, 0), row["steps"])
    rows = [row for row in rows if row["steps"] == most[identity_of(row)[:3]]]
    whole = [row for row in rows if length([row], recipe) >= 1]
    plain = [row for row in rows if row["arch"] == "cnn"] or rows
    return rows if rows and 1 - fmean(row["test_acc"] for row in plain) < LEARNT else whole


def collect(path: str) -> Path:
    """Add the finished seeds of a run directory, with their evaluations, to the rows of its recipe."""
    run = RunDir(path)
    if not (run.env.is_file() and run.results.is_file()):
        raise ValueError(f"{path} is no run directory with results")
    if (state := run.read_status().get("state", "unfinished")) not in ("finished", "failed"):
        raise ValueError(
            f"{path} is {state}: collect it after it has ended, or its rows mix with those of another length"
        )
    env = json.loads(run.env.read_text())
    date = datetime.fromtimestamp(run.read_status()["time"], UTC).date().isoformat()
    evals = [row for row in run.read_metrics() if row["kind"] == "eval"]
    recipe, options = recipe_of(load_yaml(run.config))
    rows = []
    for _, row in sorted(run.rows().items()):
        curve = {f"{e['epoch']:g}": round(e["test_acc"], 6) for e in evals if e["seed"] == row["seed"]}
        kept = {key: value for key, value in row.items() if not isinstance(value, list) and key != "row_sha256"}
        facts = {"date": date, "commit": env["commit"], "torch": env["packages"]["torch"], "device": env["device"]}
        rows.append(kept | {"options": options} | facts | {"evaluations": curve})
    out = rows_file(recipe)
    collected = list(map(identity_of, rows))
    rows += [row for row in read_rows(out) if identity_of(row) not in collected]
    rows.sort(key=identity_of)
    write_atomic(out, "".join(json.dumps(row) + "\n" for row in rows))
    return out


def rows_of(result: PublishedResult) -> list[Row]:
    """Return the finished seeds that may be compared with a published result."""
    rows = finished_rows(result.recipe)
    identity = {key: value for key in ("arch", "net") if (value := getattr(result, key))}
    rows = [row for row in rows if identity.items() <= row.items() and row.get("options") == result.options]
    return [row for row in rows if result.at in ("last", "best") or str(result.at) in row["evaluations"]]


def length(rows: list[Row], recipe: str) -> float:
    """Return the fraction of the recipe's schedule that the shortest of these runs had."""
    whole = load_yaml(CONFIGS / f"{recipe}.yaml").train
    return min(row["steps"] / whole.steps if whole.steps else row["epochs"] / (whole.epochs or 1) for row in rows)


def precisions(rows: list[Row]) -> list[str]:
    """Return the precisions other than fp32."""
    return sorted({row.get("precision", "fp32") for row in rows} - {"fp32"})
