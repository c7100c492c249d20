"""Metrics that a user picks by name (--eval.metrics), computed from all logits of the test set.

A metric is a function of one seed's logits [N, K] and labels [N] that returns a number; a plugin registers its own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stn.config import registry
from stn.config.registry import register
from stn.config.seed_list import share
from stn.training.runtime import Runtime

_BINS = 15


@register("metric")
def ece(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """Expected calibration error: 15 bins of confidence, mean gap between confidence and accuracy."""
    confidence_N, predicted_N = logits_NK.double().softmax(-1).max(-1)
    gap_N = predicted_N.eq(y_N).double() - confidence_N
    bin_N = (confidence_N * _BINS).ceil().long().clamp(1, _BINS) - 1
    return torch.zeros(_BINS, dtype=gap_N.dtype, device=gap_N.device).index_add(0, bin_N, gap_N).abs().sum() / len(y_N)


@register("metric")
def worst_class_acc(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """Accuracy of the class that is recognised worst."""
    K = logits_NK.shape[1]
    hits_K = torch.bincount(y_N[logits_NK.argmax(-1).eq(y_N)], minlength=K)
    count_K = torch.bincount(y_N, minlength=K)
    return (hits_K[count_K > 0] / count_K[count_K > 0]).min()


def gather_rows(part_SBK: Tensor, total: int, runtime: Runtime) -> Tensor:
    """Return the rows of all ranks, given this one's share of them, on every rank."""
    rows = share(total, runtime.rank, runtime.world)
    whole_SNK = part_SBK.new_zeros(len(part_SBK), total, *part_SBK.shape[2:])
    whole_SNK[:, rows.start : rows.stop] = part_SBK
    return runtime.total(whole_SNK)


def metric_scores(names: Sequence[str], logits_SNK: Tensor, y_N: Tensor, split: str) -> list[dict[str, float | None]]:
    """Return each seed's metrics as fields of its rows; None where one is not finite."""
    scores: list[dict[str, float | None]] = [{} for _ in logits_SNK]
    for name in names:
        metric = registry.find("metric", name).function
        for score, logits_NK in zip(scores, logits_SNK, strict=True):
            try:
                value = float(metric(logits_NK, y_N))
            except Exception as error:
                raise ValueError(f"metric {name}: {type(error).__name__}: {error}") from error
            score[f"{split}_{name}"] = value if math.isfinite(value) else None
    return scores
