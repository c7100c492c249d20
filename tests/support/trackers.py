"""The few calls of MLflow's and Trackio's clients that an export needs, where they are not installed."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class MlflowClient:
    """Keeps experiments and runs by the URI, as MLflow's stores do."""

    stores: dict[str | None, dict[str, Any]] = {}  # noqa: RUF012

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.store = self.stores.setdefault(tracking_uri, {"experiments": {}, "runs": []})

    def get_experiment_by_name(self, name: str) -> Any:
        known = self.store["experiments"].get(name)
        return known and SimpleNamespace(experiment_id=known, lifecycle_stage="active")

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        return self.store["experiments"].setdefault(name, str(len(self.store["experiments"]) + 1))

    def search_runs(self, experiment_ids: list[str], filter_string: str = "", max_results: int = 1000) -> list[Any]:
        runs = [run for run in self.store["runs"] if run.info.experiment_id in experiment_ids]
        for condition in filter(None, filter_string.split(" and ")):
            key, value = condition.split(" = ")
            runs = [run for run in runs if run.data.tags.get(key.split("`")[1]) == value.strip("'")]
        return runs[:max_results]

    def create_run(self, experiment_id: str, tags: dict[str, str], run_name: str) -> Any:
        info = SimpleNamespace(
            run_id=f"r{len(self.store['runs'])}-{run_name}", experiment_id=experiment_id, status="RUNNING"
        )
        run = SimpleNamespace(info=info, data=SimpleNamespace(tags=dict(tags), params={}), metrics=[], artifacts=[])
        self.store["runs"].append(run)
        return run

    def get_run(self, run_id: str) -> Any:
        return next(run for run in self.store["runs"] if run.info.run_id == run_id)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert max(len(params), len(tags)) <= 100
        run = self.get_run(run_id)
        run.metrics += metrics
        run.data.params |= {param.key: param.value for param in params}
        run.data.tags |= {tag.key: tag.value for tag in tags}

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [metric for metric in self.get_run(run_id).metrics if metric.key == key]

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str) -> None:
        self.get_run(run_id).artifacts.append((artifact_path, local_path))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.get_run(run_id).info.status = status

    def delete_run(self, run_id: str) -> None:
        self.store["runs"].remove(self.get_run(run_id))


class TrackioRun:
    """A run of Trackio's stand-in."""

    projects: dict[str, list["TrackioRun"]] = {}  # noqa: RUF012

    def __init__(self, project: str, name: str, group: str, config: dict[str, Any], **_: object) -> None:
        self.project, self.name, self.group, self.config = project, name, group, config
        self.logs: list[dict[str, Any]] = []
        self.projects.setdefault(project, []).append(self)

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.logs.append(metrics | {"step": step})

    def delete(self) -> None:
        self.projects[self.project].remove(self)

    def rename(self, name: str) -> None:
        self.name = name


def _runs(project: str) -> list[TrackioRun]:
    if project not in TrackioRun.projects:
        raise ValueError(f"Project '{project}' does not exist")
    return list(TrackioRun.projects[project])


def _metric(key: str, value: float, timestamp: int, step: int) -> SimpleNamespace:
    return SimpleNamespace(key=key, value=value, timestamp=timestamp, step=step)


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


def _mlflow() -> ModuleType:
    def pair(key: str, value: str) -> SimpleNamespace:
        return SimpleNamespace(key=key, value=value)

    entities = SimpleNamespace(Metric=_metric, Param=pair, RunTag=pair)
    exceptions = SimpleNamespace(MlflowException=type("MlflowException", (Exception,), {}))
    return _module("mlflow", MlflowClient=MlflowClient, entities=entities, exceptions=exceptions)


def _trackio() -> ModuleType:
    api = SimpleNamespace(runs=_runs)
    return _module(
        "trackio",
        init=TrackioRun,
        finish=lambda: print("* Run finished."),
        Api=lambda: api,
        Image=lambda path: {"image": path},
    )


STAND_INS: dict[str, Callable[[], ModuleType]] = {"mlflow": _mlflow, "trackio": _trackio}


def provide(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tracker be imported anew, or a stand-in where it is not installed; skip what has neither."""
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "not where --out is"))
    if package not in STAND_INS:
        pytest.importorskip(package)
    elif find_spec(package) is None:
        (MlflowClient.stores if package == "mlflow" else TrackioRun.projects).clear()
        monkeypatch.setitem(sys.modules, package, STAND_INS[package]())
    else:
        for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
            monkeypatch.delitem(sys.modules, name)  # it reads its folder when it is imported
