"""What a run notes of its transformers: their parameters for fixed images on the way, pose and bypass at the end."""

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
    """A row for each seed that is alive and whose network has a transformer."""
    rows: list[Row | None] = []
    for s, seed in enumerate(model.seeds):
        theta = [] if s in failed else pose.thetas(model.network(s), stream)
        row = {"kind": "warp", "seed": seed, "step": step, "epoch": step / stream.steps_per_epoch, "theta": theta}
        rows.append(row if theta else None)
    return rows


def final_transformer_metrics(
    model: StackedModel, stream: Stream, step: int, batch_size: int, runtime: Runtime, failed: Container[int] = ()
) -> tuple[list[Row], list[Row | None]]:
    """What result rows of seeds that are alive have beside the scores, and rows of poses for the record.

    Every rank takes part.
    """
    with bypassed(model) as has_transformers:
        scores = evaluate(model, stream, batch_size, runtime) if has_transformers else []
    looks: list[Row] = [{} for _ in model.seeds]
    rows: list[Row | None] = [None for _ in model.seeds]
    split = "val" if stream.data.validation else "test"
    for s, score in enumerate(scores):
        if s in failed:
            continue
        looks[s]["bypass_acc"] = score[f"{split}_acc"]
        if runtime.writes:
            fields, points = pose.measure(model.network(s), stream, batch_size)
            looks[s] |= fields
            row = {"kind": "pose", "seed": model.seeds[s], "step": step, "epoch": step / stream.steps_per_epoch}
            rows[s] = row | points if points else None
    return looks, rows
