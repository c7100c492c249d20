"""Exact evaluation: every test image counts once, on any number of processes. S seed, B batch, K class."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.config.schema import Eval
from stn.data.stream import Stream
from stn.evaluation.metrics import gather_rows, metric_scores
from stn.evaluation.predictions import RankAnswers
from stn.models.transformer import SpatialTransformer
from stn.multiseed.convolution import Convolutions
from stn.multiseed.memory import MOST_ELEMENTS, SHARE, Allocations, free_bytes
from stn.multiseed.model import StackedModel
from stn.training.runtime import Runtime


def scores(confusion_KK: Tensor, loss: float, top5_hits: int, split: str = "test") -> dict[str, Any]:
    """Return everything that follows from a confusion matrix (rows: truth), the mean loss and the top-5 hits."""
    total, hits_K = int(confusion_KK.sum()), confusion_KK.diag().double()
    truth_K, predicted_K = confusion_KK.sum(1).double(), confusion_KK.sum(0).double()
    occurrences_K = truth_K + predicted_K
    f1_K = 2 * hits_K / occurrences_K.clamp(min=1)
    accuracy = float(hits_K.sum() / max(1, total))
    top5 = {f"{split}_top5_acc": top5_hits / max(1, total)} if len(confusion_KK) > 5 else {}
    return {
        f"{split}_acc": accuracy,
        **top5,
        f"{split}_error": 1 - accuracy,
        f"{split}_loss": loss,
        "macro_f1": float(f1_K[occurrences_K > 0].mean()),
        f"{split}_count": total,
        "per_class_acc": (hits_K / truth_K.clamp(min=1)).tolist(),
        "confusion": confusion_KK.tolist(),
    }


def _sum(losses: list[float]) -> float:
    try:
        return math.fsum(losses)
    except OverflowError:  # of a network that is about to fail; the seeds beside it go on
        return math.inf


def images_at_once(model: StackedModel, stream: Stream, batch_size: int) -> int:
    """Return how many test images all seeds see at a time: a GPU takes as many as memory allows."""
    if stream.device.type == "cpu":
        return max(1, stream.test_batch_size(batch_size) // len(model.seeds))
    x_1CHW = stream.test_images(torch.zeros(1, dtype=torch.int64, device=stream.device)).x_BCHW
    chosen, model.convolutions = model.convolutions, Convolutions("grouped")  # one image is nothing to time
    with torch.no_grad(), Allocations() as allocations:
        model.predict(x_1CHW)
    model.convolutions = chosen
    fits = min(MOST_ELEMENTS // allocations.elements, int(SHARE * free_bytes(stream.device)) // allocations.bytes)
    return max(1, min(8 * batch_size, fits))


def evaluate(model: StackedModel, stream: Stream, options: Eval, runtime: Runtime) -> list[dict[str, Any]]:
    """Return the scores of each seed over the whole test set, which is divided over the ranks."""
    return evaluate_images(model, stream, options, runtime)[0]


def evaluate_images(
    model: StackedModel, stream: Stream, options: Eval, runtime: Runtime
) -> tuple[list[dict[str, Any]], RankAnswers]:
    """Return the scores of each seed over the whole test set, and the answers to this rank's part of it."""
    S, K = len(model.seeds), stream.dataset.classes
    confusion_SKK = torch.zeros(S, K, K, dtype=torch.int64, device=stream.device)
    losses_SN = [torch.zeros(S, 0, dtype=torch.float64, device=stream.device)]
    top5_S = torch.zeros(S, dtype=torch.int64, device=stream.device)
    training = model.training
    model.eval()
    images = images_at_once(model, stream, options.batch_size)
    logits = [torch.zeros(S, 0, K, device=stream.device)]  # kept only for metrics that need all of them
    labels = [torch.zeros(1, 0, dtype=torch.int64, device=stream.device)]
    batches: list[RankAnswers] = []
    with torch.no_grad(), runtime.accelerator.autocast():
        for batch in stream.test_batches(images, runtime.rank, runtime.world):
            logits_SBK = model.predict(batch.x_BCHW, batch.index_B)
            if options.mirror:
                logits_SBK = (logits_SBK + model.predict(batch.x_BCHW.flip(-1), batch.index_B)) / 2
            y_SB = batch.y_B.expand(S, -1)
            cell_SB = y_SB * K + logits_SBK.argmax(-1)
            confusion_SKK.view(S, -1).scatter_add_(1, cell_SB, torch.ones_like(y_SB))
            losses_SN.append(F.cross_entropy(logits_SBK.double().transpose(1, 2), y_SB, reduction="none"))
            top5_SB5 = logits_SBK.topk(min(5, K)).indices
            top5_S += top5_SB5.eq(y_SB.unsqueeze(2)).sum((1, 2))
            batches.append(RankAnswers.of(logits_SBK, batch.y_B, batch.pose_BP))
            if options.metrics:
                logits.append(logits_SBK.float())
                labels.append(batch.y_B[None])
    model.train(training)
    # Rounded once: the sum does not depend on the size of the batches, and so not on how many seeds there are.
    sums = [_sum(losses) for losses in torch.cat(losses_SN, 1).tolist()]
    loss_S = torch.tensor(sums, dtype=torch.float64, device=stream.device)
    confusion_SKK, loss_S, top5_S = map(runtime.total, (confusion_SKK, loss_S, top5_S))
    found = [
        scores(confusion_KK.cpu(), float(loss / confusion_KK.sum()), int(top5), stream.data.split)
        for confusion_KK, loss, top5 in zip(confusion_SKK, loss_S, top5_S, strict=True)
    ]
    answers = RankAnswers.joined(batches, S, stream.device, len(stream.dataset.pose))
    if not options.metrics:
        return found, answers
    logits_SNK, y_1N = (gather_rows(torch.cat(parts, 1), stream.test_count, runtime) for parts in (logits, labels))
    own = metric_scores(options.metrics, logits_SNK, y_1N[0], stream.data.split)
    return [score | more for score, more in zip(found, own, strict=True)], answers


@contextmanager
def bypassed(model: StackedModel) -> Iterator[bool]:
    """Replace every transform by the identity; yield whether the networks have transformers."""
    sts = [module for module in model.template.modules() if isinstance(module, SpatialTransformer)]
    for st in sts:
        st.bypassed = True
    try:
        yield bool(sts)
    finally:
        for st in sts:
            st.bypassed = False
