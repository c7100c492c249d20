"""MLflow: an experiment per name, a run per seed, found again by its tags stn.sig and stn.seed.

A seed that has more rows than before is completed; one that was trained anew is replaced, its old run deleted.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.export.command import Outcome, import_package
from launch.export.seeds import SeedRecord

AT_A_TIME = 1000
"""Metrics in one request, MLflow's own limit."""
MOST_PARAMETERS = 100
"""Parameters in one request, likewise."""
MOST_CHARACTERS = 500
"""Characters of a parameter's or tag's value, the limit of old versions of MLflow."""
STATES = {"finished": "FINISHED", "failed": "FAILED"}


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage != "active":
        raise ValueError(f"MLflow's experiment '{name}' was deleted; restore it, or give another --project")
    return known.experiment_id if known else client.create_experiment(name, artifact_location=artifacts)


def write_mlflow(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    mlflow = import_package("mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri, artifacts = out or None, None
    if out and "://" not in out:  # a folder
        Path(out).mkdir(parents=True, exist_ok=True)
        uri, artifacts = f"sqlite:///{Path(out).resolve()}/mlflow.db", (Path(out).resolve() / "artifacts").as_uri()
    client = mlflow.MlflowClient(tracking_uri=uri)
    try:
        for seed in seeds:
            experiment = _experiment(client, project or str(seed.config.log.name), artifacts)
            yield seed, _write_seed(mlflow.entities, client, experiment, seed)
    except mlflow.exceptions.MlflowException as error:
        raise OSError(f"MLflow: {error}; what was exported stays, run the same command again") from None


def _write_seed(entities: Any, client: Any, experiment: str, seed: SeedRecord) -> str:
    wanted = f"tags.`stn.sig` = '{seed.sig}' and tags.`stn.seed` = '{seed.seed}'"
    old = next(iter(client.search_runs([experiment], wanted, max_results=1)), None)
    outcome = "completed"
    if old is not None and old.data.tags.get("stn.digest") == seed.digest:
        return "unchanged"
    if old is not None and old.data.tags.get("stn.result", seed.result_hash) != seed.result_hash:
        client.delete_run(old.info.run_id)
        old, outcome = None, "replaced"
    if old is None:
        outcome = "new" if outcome == "completed" else outcome
        tags = {"stn.sig": seed.sig, "stn.seed": str(seed.seed), "stn.group": seed.group}
        old = client.create_run(experiment, run_name=seed.id, tags=tags)
    _complete(entities, client, old.info.run_id, seed)
    return outcome


def _complete(entities: Any, client: Any, run: str, seed: SeedRecord) -> None:
    """Send what the run lacks: parameters, of each metric the steps after its last, the result, and the pictures."""
    has = client.get_run(run).data
    has_result = has.tags.get("stn.result") is not None
    lacking = {key: value for key, value in seed.parameters.items() if key not in has.params}
    parameters = [entities.Param(key, str(value)[:MOST_CHARACTERS]) for key, value in lacking.items()]
    for i in range(0, len(parameters), MOST_PARAMETERS):
        client.log_batch(run, params=parameters[i : i + MOST_PARAMETERS])
    last: dict[str, int] = {}
    for key in {key for _, point in seed.points for key in point}:
        last[key] = max((metric.step for metric in client.get_metric_history(run, key)), default=-1)
    now = int(time.time() * 1000)
    new = [(k, v, now, step) for step, point in seed.points for k, v in point.items() if step > last[k]]
    at = seed.points[-1][0] if seed.points else 0
    numbers = {key: float(value) for key, value in seed.scalars.items() if isinstance(value, int | float)}
    numbers = {} if has_result else {key: value for key, value in numbers.items() if key not in last and key != "seed"}
    new += [(key, value, now, at) for key, value in numbers.items()]
    for i in range(0, len(new), AT_A_TIME):
        client.log_batch(run, metrics=[entities.Metric(*metric) for metric in new[i : i + AT_A_TIME]])
    for (name, _), path in seed.pictures.items():
        client.log_artifact(run, str(path), name if name == "warps" else "pictures")
    words = {key: value[:MOST_CHARACTERS] for key, value in seed.scalars.items() if isinstance(value, str)}
    facts = {"stn.status": seed.status, "stn.digest": seed.digest}
    facts |= {"stn.result": seed.result_hash} if seed.result_hash else {}
    tags = {f"stn.{key}": value for key, value in words.items()} | facts
    if seed.result:
        client.set_terminated(run, STATES[seed.status])
    # The digest, by which a run counts as complete, comes last.
    client.log_batch(run, tags=[entities.RunTag(key, value) for key, value in tags.items()])
