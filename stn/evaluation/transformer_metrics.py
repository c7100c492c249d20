"""What a run records of its transformers: transforms of fixed images during training, pose and bypass at the end."""

import math
from collections.abc import Container
from typing import Any

import torch
from torch import Tensor

from stn.config.schema import Eval
from stn.data.stream import Stream
from stn.evaluation.accuracy import bypassed, evaluate
from stn.evaluation.pose import measure_poses
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel
from stn.runs.directory import Row
from stn.training.runtime import Runtime

SHOWN = 12
"""Test images whose transform is recorded during training."""


@torch.no_grad()
def transform_snapshots(
    model: StackedModel, stream: Stream, step: int, failed: Container[int] = ()
) -> list[Row | None]:
    """Return, for each seed that is alive, a row with the transform parameters of the first test images."""
    rows: list[Row | None] = [None for _ in model.seeds]
    if not isinstance(model.template, Transformed):
        return rows
    images = stream.test_images(torch.arange(min(SHOWN, stream.test_count), device=stream.device))
    training = model.training
    theta_SBP = model.eval().inspect(_thetas, images.x_BCHW)
    model.train(training)
    for s, theta_BP in enumerate(theta_SBP.tolist()):
        if s not in failed:
            theta = [[round(x, 6) if math.isfinite(x) else 0.0 for x in line] for line in theta_BP]
            row = {"kind": "warp", "seed": model.seeds[s], "step": step, "epoch": step / stream.steps_per_epoch}
            rows[s] = row | {"theta": theta}
    return rows


def _thetas(network: Any, x_BCHW: Tensor) -> Tensor:
    return torch.cat([warp.theta_BP for warp in network.warps(x_BCHW)], 1)


def final_transformer_metrics(
    model: StackedModel, stream: Stream, step: int, options: Eval, runtime: Runtime, failed: Container[int] = ()
) -> tuple[list[Row], list[Row | None]]:
    """Return fields for the result rows, and pose rows for metrics.jsonl, of the seeds that are alive; collective."""
    with bypassed(model) as has_transformers:
        plain = options.model_copy(update={"metrics": ()})
        scores = evaluate(model, stream, plain, runtime) if has_transformers else []
    fields: list[Row] = [{} for _ in model.seeds]
    rows: list[Row | None] = [None for _ in model.seeds]
    poses = measure_poses(model, stream, options.batch_size) if runtime.writes else []
    for s in range(len(model.seeds)):
        if s in failed:
            continue
        if scores:
            fields[s]["bypass_acc"] = scores[s][f"{stream.data.split}_acc"]
        if poses:
            metrics, points = poses[s]
            fields[s] |= metrics
            row = {"kind": "pose", "seed": model.seeds[s], "step": step, "epoch": step / stream.steps_per_epoch}
            rows[s] = row | points if points else None
    return fields, rows
