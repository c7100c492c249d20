"""Running metrics of a block of seeds: sums since the last row, best evaluation, time, failures.

Sums stay on the device until a row is due. All of it is part of a checkpoint. A seed's index is its position in the
block. S seed, W rank, N kind of sum: loss, hits, steps and, on request, gradient norm.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from stn.runs.directory import Row
from stn.training.runtime import Runtime

NEVER = 2**62
COST = ("wall_s", "train_s", "images")


class RunningMetrics:
    """What a block's rows are made of. Methods that make rows are collective: every rank calls them."""

    def __init__(self, seeds: list[int], runtime: Runtime, split: str, grad_norm: bool = False) -> None:
        self.seeds, self.runtime, self.split = seeds, runtime, split
        self._sums_NS = torch.zeros(3 + grad_norm, len(seeds), dtype=torch.float64, device=runtime.device)
        self._failed_step_S = torch.full((len(seeds),), NEVER, device=runtime.device)
        self._one_S, self._never = torch.ones(len(seeds), device=runtime.device), self._failed_step_S[0].clone()
        self.failed: dict[int, int] = {}
        """By index: the step at which the loss was not finite."""
        self.best: dict[int, list[float]] = {}
        """By index: accuracy and epoch of the best evaluation."""
        self.improved: list[int] = []
        """Indices of the seeds whose last evaluation is their best so far."""
        self.last: dict[int, dict[str, Any]] = {}
        """By index: scores of the last evaluation."""
        self.cost = dict.fromkeys(COST, 0.0)
        """What this start has spent on the block: seconds, of these in training, and images of all seeds."""
        self.cost_before = [dict.fromkeys(COST, 0.0) for _ in seeds]
        """What earlier starts have spent on the block in which each seed was."""
        self._last_tick, self._train_s_since_row, self._images_since_row = time.perf_counter(), 0.0, 0

    def add(self, clock: Tensor, loss_S: Tensor, hits_S: Tensor, norm_S: Tensor | None = None) -> None:
        """Add one step's mean loss, share of hits and gradient norm, without a host sync."""
        sums = [loss_S, hits_S, self._one_S.to(loss_S.dtype)] + ([] if norm_S is None else [norm_S])
        self._sums_NS += torch.stack(sums[: len(self._sums_NS)])  # clipping has norms that need no row
        fails_now_S = torch.where(loss_S.abs() < math.inf, self._never, clock)
        torch.minimum(self._failed_step_S, fails_now_S, out=self._failed_step_S)

    def count_images(self, images: int) -> None:
        """Count the images that all seeds together were trained on."""
        self.cost["images"] += images
        self._images_since_row += images

    def peek(self) -> tuple[float, float] | None:
        """Return this rank's mean loss and accuracy since the last row; None on a GPU, where that is a host sync."""
        if self._sums_NS.device.type != "cpu":
            return None
        loss, hits, steps = self._sums_NS[:3].sum(1).tolist()
        return (loss / steps, hits / steps) if steps else None

    def alive(self) -> bool:
        """Whether any seed can still be trained, as of the last row."""
        return len(self.failed) < len(self.seeds)

    def find_failed(self) -> None:
        """Mark the seeds whose loss was not finite; every rank comes to the same answer."""
        for index, step in enumerate(self.runtime.gather(self._failed_step_S).amin(0).tolist()):
            if step != NEVER:
                self.failed.setdefault(index, step)

    def train_rows(self, step: int, epoch: float, lrs: list[float]) -> list[Row | None]:
        """Return each seed's means since the last row; None for a seed that has failed."""
        self.find_failed()
        sums_NS = self.runtime.total(self._sums_NS)
        means_SN = (sums_NS / sums_NS[2]).T.tolist()
        self.tick(training=True)
        images_per_s = round(self._images_since_row / max(1e-9, self._train_s_since_row), 1)
        self._sums_NS.zero_()
        self._train_s_since_row, self._images_since_row = 0.0, 0
        rows: list[Row | None] = []
        for i, (seed, (loss, acc, _, *norm)) in enumerate(zip(self.seeds, means_SN, strict=True)):
            row = {"kind": "train", "seed": seed, "step": step, "epoch": epoch, "loss": loss, "acc": acc}
            if norm and math.isfinite(norm[0]):  # it is not where fp16 has skipped a step
                row["grad_norm"] = norm[0]
            rows.append(None if i in self.failed else row | {"lr": lrs[i], "images_per_s": images_per_s})
        return rows

    def eval_rows(self, step: int, epoch: float, scores: list[dict[str, Any]]) -> list[Row | None]:
        """Return each seed's scores and update its best; None for a seed that has failed."""
        self.find_failed()
        self.improved = []
        rows: list[Row | None] = [None] * len(self.seeds)
        for i, score in enumerate(scores):
            if not math.isfinite(score[f"{self.split}_loss"]):
                self.failed.setdefault(i, step)
            if i not in self.failed:
                accuracy = score[f"{self.split}_acc"]
                if i not in self.best or accuracy > self.best[i][0]:
                    self.best[i] = [accuracy, epoch]
                    self.improved.append(i)
                self.last[i] = score
                numbers = {k: v for k, v in score.items() if isinstance(v, float | int)}
                rows[i] = {"kind": "eval", "seed": self.seeds[i], "step": step, "epoch": epoch, **numbers}
        return rows

    def tick(self, training: bool) -> None:
        """Book the time since the last call; evaluation and saving are not training."""
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)  # so that queued work counts as time that has passed
        now = time.perf_counter()
        passed_s, self._last_tick = now - self._last_tick, now
        self.cost["wall_s"] += passed_s
        if training:
            self.cost["train_s"] += passed_s
            self._train_s_since_row += passed_s

    def _cost(self, index: int) -> dict[str, float]:
        return {key: self.cost_before[index][key] + self.cost[key] for key in COST}

    def result(self, index: int) -> Row:
        """Return the result row's part of a seed that has finished or failed."""
        failed, cost = self.failed.get(index), self._cost(index)
        scores = dict.fromkeys([f"{self.split}_acc", f"{self.split}_error", f"{self.split}_loss", "macro_f1"])
        best_acc, best_epoch = self.best.get(index, (None, None))
        return {
            "status": "finished" if failed is None else "failed",
            "reason": None if failed is None else f"non-finite loss at step {failed}",
            **(scores if failed is not None else scores | self.last[index]),
            f"best_{self.split}_acc": best_acc,
            "best_epoch": best_epoch,
            "wall_s": cost["wall_s"],
            "images_per_s": cost["images"] / max(1e-9, cost["train_s"]),
            "fused": len(self.seeds),
        }

    def state_dicts(self) -> list[dict[str, Any]]:
        """Return what a checkpoint keeps of each seed; sums rank by rank, so that a resume adds in the same order."""
        self.find_failed()
        sums_SWN = self.runtime.gather(self._sums_NS).permute(2, 0, 1)
        return [
            {"sums": sums, "best": self.best.get(i), "last": self.last.get(i), "failed": self.failed.get(i)}
            | self._cost(i)
            for i, sums in enumerate(sums_SWN.tolist())
        ]

    def load_state_dicts(self, states: list[dict[str, Any]]) -> None:
        for i, state in enumerate(states):
            sums_WN = torch.tensor(state["sums"], dtype=torch.float64)
            # A checkpoint without gradient norms: the first row after it has none either.
            sums_WN = torch.nn.functional.pad(sums_WN, (0, len(self._sums_NS) - sums_WN.shape[1]), value=math.nan)
            if len(sums_WN) == self.runtime.world:
                self._sums_NS[:, i] = sums_WN[self.runtime.rank]
            elif self.runtime.rank == 0:
                self._sums_NS[:, i] = sums_WN.sum(0)
            for table, key in ((self.best, "best"), (self.last, "last"), (self.failed, "failed")):
                if state[key] is not None:
                    table[i] = state[key]
            self.cost_before[i] = {key: state[key] for key in COST}
