"""What a run records of its transformers: transforms of fixed images during training, pose and bypass at the end."""

from collections.abc import Container

from stn.data.stream import Stream
from stn.evaluation import pose
from stn.evaluation.accuracy import bypassed, evaluate
from stn.multiseed.model import StackedModel
from stn.runs.directory import Row
from stn.training.runtime import Runtime


def transform_snapshots(
    model: StackedModel, stream: Stream, step: int, failed: Container[int] = ()
) -> list[Row | None]:
    """Return a row for each seed that is alive and whose network has a transformer."""
    rows: list[Row | None] = []
    for s, seed in enumerate(model.seeds):
        theta = [] if s in failed else pose.thetas(model.network(s), stream)
        row = {"kind": "warp", "seed": seed, "step": step, "epoch": step / stream.steps_per_epoch, "theta": theta}
        rows.append(row if theta else None)
    return rows


def final_transformer_metrics(
    model: StackedModel, stream: Stream, step: int, batch_size: int, runtime: Runtime, failed: Container[int] = ()
) -> tuple[list[Row], list[Row | None]]:
    """Return fields for the result rows, and pose rows for metrics.jsonl, of the seeds that are alive; collective."""
    with bypassed(model) as has_transformers:
        scores = evaluate(model, stream, batch_size, runtime) if has_transformers else []
    fields_of: list[Row] = [{} for _ in model.seeds]
    rows: list[Row | None] = [None for _ in model.seeds]
    split = stream.data.split
    for s, score in enumerate(scores):
        if s in failed:
            continue
        fields_of[s]["bypass_acc"] = score[f"{split}_acc"]
        if runtime.writes:
            fields, points = pose.measure(model.network(s), stream, batch_size)
            fields_of[s] |= fields
            row = {"kind": "pose", "seed": model.seeds[s], "step": step, "epoch": step / stream.steps_per_epoch}
            rows[s] = row | points if points else None
    return fields_of, rows
