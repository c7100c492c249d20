"""What an export has written, read back with the clients of the trackers."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.wandb_runs import rows_of

Values = dict[tuple[str, int], dict[tuple[str, int], float]]
"""(sig, seed) -> (name, step) -> value."""


def expected(seed: int, last: int) -> dict[tuple[str, int], float]:
    rows = rows_of(seed, last)
    losses = {("train/loss", row["step"]): row["loss"] for row in rows if row["kind"] == "train"}
    return losses | {("test_acc", row["step"]): row["test_acc"] for row in rows if row["kind"] == "eval"}


def only_compared(values: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    return {key: value for key, value in values.items() if key[0] in ("train/loss", "test_acc")}


def read_lines(lines: list[dict[str, Any]]) -> Values:
    found: Values = {}
    for line in lines:
        values, step = found.setdefault((line["sig"], int(line["seed"])), {}), int(line["step"])
        for name, column in (("train/loss", "loss"), ("test_acc", "test_acc")):
            if line.get(column) not in (None, ""):
                assert (name, step) not in values
                values[name, step] = float(line[column])
    return found


def read_csv(out: Path) -> Values:
    with (out / "metrics.csv").open() as file:
        return read_lines(list(csv.DictReader(file)))


def read_parquet(out: Path) -> Values:
    return read_lines(pytest.importorskip("pyarrow.parquet").read_table(out / "metrics.parquet").to_pylist())


def read_tensorboard(out: Path) -> Values:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Values = {}
    for folder in (out / "tensorboard").glob("*/*/seed-*"):
        events = EventAccumulator(str(folder))
        events.Reload()
        values = found.setdefault((folder.parent.name, int(folder.name[5:])), {})
        for tag in events.Tags()["scalars"]:
            steps = [(tag.removeprefix("eval/"), scalar.step) for scalar in events.Scalars(tag)]
            assert len(steps) == len(set(steps))
            values |= dict(zip(steps, [scalar.value for scalar in events.Scalars(tag)], strict=True))
    return {key: only_compared(values) for key, values in found.items()}


def read_mlflow(out: Path) -> Values:
    client = sys.modules["mlflow"].MlflowClient(tracking_uri=f"sqlite:///{out.resolve()}/mlflow.db")
    found: Values = {}
    for run in client.search_runs([client.get_experiment_by_name("exp").experiment_id]):
        key = run.data.tags["stn.sig"], int(run.data.tags["stn.seed"])
        assert key not in found
        names = [(name, client.get_metric_history(run.info.run_id, name)) for name in ("train/loss", "test_acc")]
        points = [(name, metric) for name, history in names for metric in history]
        found[key] = {(name, metric.step): metric.value for name, metric in points}
        assert len(found[key]) == len(points)
    return found


def read_trackio(out: Path) -> Values:
    found: Values = {}
    assert Path(getattr(sys.modules["trackio"], "TRACKIO_DIR", out)) == out
    for run in sys.modules["trackio"].Api().runs("exp"):
        logs = run.logs if hasattr(run, "logs") else _trackio_logs(run.name)
        values = {(name, log["step"]): value for log in logs for name, value in log.items() if name != "step"}
        key = run.config["sig"], run.config["seed"]
        assert key not in found
        found[key] = only_compared(values)
    return found


def _trackio_logs(name: str) -> list[dict[str, Any]]:
    from trackio.sqlite_storage import SQLiteStorage  # type: ignore[import-not-found]  # what its page reads

    return SQLiteStorage.get_logs("exp", name)


READERS = {
    "csv": read_csv,
    "parquet": read_parquet,
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


def close(found: Values) -> Any:
    """TensorBoard keeps float32."""
    return {key: {k: pytest.approx(v, rel=1e-6) for k, v in values.items()} for key, values in found.items()}


def read_table(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    with path.open() as file:
        return list(csv.DictReader(file))


def images(folder: Path) -> dict[str, dict[int, bytes]]:
    """Return the images that TensorBoard has, by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: {i.step: i.encoded_image_string for i in events.Images(tag)} for tag in events.Tags()["images"]}
