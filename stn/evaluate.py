"""Exact evaluation: every test image counts once, on any number of processes.

python -m stn.evaluate RUN re-evaluates a finished run directory.
S seed, B batch, K class.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.archs import build_model
from stn.archs.transformer import SpatialTransformer
from stn.checkpoint import load_final
from stn.cli import fail
from stn.config import load_yaml
from stn.data.stream import Stream
from stn.log import say
from stn.resolve import build_dataset
from stn.rundir import RunDir, read_rows
from stn.runtime import Runtime
from stn.seeds import Seeds


def scores(confusion_KK: Tensor, loss: float, split: str = "test") -> dict[str, Any]:
    """Everything that follows from a confusion matrix (rows: truth) and the mean loss."""
    total, hits = int(confusion_KK.sum()), confusion_KK.diag().double()
    truth, predicted = confusion_KK.sum(1).double(), confusion_KK.sum(0).double()
    f1 = 2 * hits / (truth + predicted).clamp(min=1)
    present = (truth + predicted) > 0
    accuracy = float(hits.sum() / max(1, total))
    return {
        f"{split}_acc": accuracy,
        f"{split}_error": 1 - accuracy,
        f"{split}_loss": loss,
        "macro_f1": float(f1[present].mean()),
        f"{split}_count": total,
        "per_class_acc": (hits / truth.clamp(min=1)).tolist(),
        "confusion": confusion_KK.tolist(),
    }


def evaluate(seeds: Seeds, stream: Stream, batch_size: int, runtime: Runtime) -> list[dict[str, Any]]:
    """Scores of each seed over the whole test set, which the ranks share out."""
    S, K = len(seeds.seeds), stream.dataset.classes
    # The maps of all seeds are in memory at once; a GPU wants many.
    rows = max(1, batch_size * (1 if stream.device.type == "cpu" else 8) // S)
    confusion_SKK = torch.zeros(S, K * K, dtype=torch.int64, device=stream.device)
    loss_S = torch.zeros(S, dtype=torch.float64, device=stream.device)
    training = seeds.training
    seeds.eval()
    with torch.no_grad(), runtime.accelerator.autocast():
        for batch in stream.test_batches(rows, runtime.rank, runtime.world):
            logits_SBK = seeds.predict(batch.x_BCHW)
            y_SB = batch.y_B.expand(S, -1)
            confusion_SKK.scatter_add_(1, y_SB * K + logits_SBK.argmax(-1), torch.ones_like(y_SB))
            each_SB = F.cross_entropy(logits_SBK.double().transpose(1, 2), y_SB, reduction="none")
            loss_S += each_SB.sum(1)
    seeds.train(training)
    confusion_SKK, loss_S = runtime.total(confusion_SKK), runtime.total(loss_S)
    split = "val" if stream.data.validation else "test"
    return [
        scores(c.view(K, K).cpu(), float(loss / c.sum()), split) for c, loss in zip(confusion_SKK, loss_S, strict=True)
    ]


@contextmanager
def bypassed(seeds: Seeds) -> Iterator[bool]:
    """The networks without what their transformers do; says whether they have any."""
    sts = [module for module in seeds.network(0).modules() if isinstance(module, SpatialTransformer)]
    for st in sts:
        st.bypassed = True
    yield bool(sts)
    for st in sts:
        st.bypassed = False


def evaluate_run(path: str) -> int:
    """Evaluate every finished seed of a run directory again, and hold it against its result row."""
    run = RunDir(path)
    if not run.config.is_file() or not run.results.is_file():
        raise ValueError(f"{path} is no run directory with results: it needs config.yaml and results.jsonl")
    config = load_yaml(run.config)
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"processes": None, "parallel": "auto"})}
    )
    dataset, code = build_dataset(config.data.name), 0
    rows = [row for row in read_rows(run.results) if row["status"] == "finished"]
    runtime = Runtime(config, len(rows))
    for row in rows:
        seeds = Seeds(
            lambda: build_model(config.arch, dataset.shape, dataset.classes),
            [row["seed"]],
            runtime.device,
            runtime.dtype,
        )
        seeds.load_weights(0, load_final(run, row["seed"]))
        stream = Stream(config.data, dataset, seeds.seeds, runtime.device, runtime.dtype)
        found = evaluate(seeds, stream, config.eval.batch_size, runtime)[0]
        same = found["confusion"] == row["confusion"]
        code = code or int(not same)
        figures = "  ".join(f"{k} {v:.6f}" for k, v in found.items() if isinstance(v, float))
        say(f"seed {row['seed']}  {figures}  {'as recorded' if same else 'NOT as recorded'}")
    return code


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        fail("usage: python -m stn.evaluate RUN, where RUN is runs/<name>/<sig>/<seeds>")
    try:
        sys.exit(evaluate_run(sys.argv[1]))
    except ValueError as error:
        fail(error)
