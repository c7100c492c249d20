"""What a block of seeds has done so far: running sums, best evaluation, time, failures.

Sums stay on the device until a row is due. Everything here is part of a checkpoint. A place is
the position of a seed in its block. S seed, B batch.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from stn.runs.directory import Row
from stn.training.runtime import Runtime

NEVER = 2**62


class RunningMetrics:
    def __init__(self, seeds: list[int], runtime: Runtime, split: str) -> None:
        self.seeds, self.runtime, self.split = seeds, runtime, split
        self._sums_3S = torch.zeros(3, len(seeds), dtype=torch.float64, device=runtime.device)  # loss, hits, steps
        self._bad_S = torch.full((len(seeds),), NEVER, device=runtime.device)
        self.failed: dict[int, int] = {}
        """Place -> the step at which its loss was no longer a number."""
        self.best: dict[int, list[float]] = {}
        """Place -> accuracy and epoch of its best evaluation."""
        self.last: dict[int, dict[str, Any]] = {}
        """Place -> scores of its last evaluation."""
        self.wall_s, self.train_s, self.images = 0.0, 0.0, 0
        self._mark, self._lap_s, self._lap_images = time.perf_counter(), 0.0, 0

    def add(self, clock: Tensor, loss_S: Tensor, hits_S: Tensor) -> None:
        """The mean loss and the share of hits of one step; nothing is copied from the device."""
        self._sums_3S += torch.stack([loss_S, hits_S, torch.ones_like(loss_S)]).double()
        bad_S = ~loss_S.isfinite() & (self._bad_S == NEVER)
        self._bad_S.copy_(torch.where(bad_S, clock, self._bad_S))

    def count(self, images: int) -> None:
        """Images that all seeds together were trained on."""
        self.images += images
        self._lap_images += images

    def alive(self) -> bool:
        return len(self.failed) < len(self.seeds)

    def find_failed(self) -> None:
        """Mark the seeds whose loss was no longer a number; all ranks come to the same answer."""
        for place, step in enumerate(self._gather(self._bad_S).amin(0).tolist()):
            if step != NEVER:
                self.failed.setdefault(place, step)

    def train_rows(self, step: int, epoch: float, lrs: list[float]) -> list[Row | None]:
        """Means since the last rows, for each seed that is alive."""
        self.find_failed()
        sums_3S = self.runtime.total(self._sums_3S)
        loss, acc = (sums_3S[:2] / sums_3S[2]).tolist()
        self.tick(training=True)
        speed = round(self._lap_images / max(1e-9, self._lap_s), 1)
        self._sums_3S.zero_()
        self._lap_s, self._lap_images = 0.0, 0
        rows: list[Row | None] = []
        for i, seed in enumerate(self.seeds):
            row = {"kind": "train", "seed": seed, "step": step, "epoch": epoch, "loss": loss[i], "acc": acc[i]}
            rows.append(None if i in self.failed else row | {"lr": lrs[i], "images_per_s": speed})
        return rows

    def eval_rows(self, step: int, epoch: float, scores: list[dict[str, Any]]) -> list[Row | None]:
        """The scores of each seed that is alive, and the best so far."""
        self.find_failed()
        rows: list[Row | None] = []
        for i, (seed, score) in enumerate(zip(self.seeds, scores, strict=True)):
            if not math.isfinite(score[f"{self.split}_loss"]):
                self.failed.setdefault(i, step)
            if i in self.failed:
                rows.append(None)
                continue
            accuracy, before = score[f"{self.split}_acc"], self.best.get(i)
            if before is None or accuracy > before[0]:
                self.best[i] = [accuracy, epoch]
            self.last[i] = score
            numbers = {k: v for k, v in score.items() if isinstance(v, float | int)}
            rows.append({"kind": "eval", "seed": seed, "step": step, "epoch": epoch, **numbers})
        return rows

    def tick(self, training: bool) -> None:
        """Book the time since the last call; evaluation and saving are not training."""
        now = time.perf_counter()
        passed, self._mark = now - self._mark, now
        self.wall_s += passed
        if training:
            self.train_s += passed
            self._lap_s += passed

    def result(self, place: int) -> Row:
        """What is known of a seed that has come to its end."""
        failed = self.failed.get(place)
        scores = dict.fromkeys([f"{self.split}_acc", f"{self.split}_error", f"{self.split}_loss", "macro_f1"])
        best_acc, best_epoch = self.best.get(place, (None, None))
        return {
            "status": "finished" if failed is None else "failed",
            "reason": None if failed is None else f"the loss was no longer a number at step {failed}",
            **(scores if failed is not None else scores | self.last[place]),
            f"best_{self.split}_acc": best_acc,
            "best_epoch": best_epoch,
            "wall_s": self.wall_s,
            "images_per_s": self.images / max(1e-9, self.train_s),
            "fused": len(self.seeds),
        }

    def states(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps of each seed; sums rank by rank, so that a resume adds in the same order."""
        self.find_failed()
        sums_W3S = self._gather(self._sums_3S)
        return [
            {
                "sums": sums_W3S[:, :, i].tolist(),
                "best": self.best.get(i),
                "last": self.last.get(i),
                "failed": self.failed.get(i),
                "wall_s": self.wall_s,
                "train_s": self.train_s,
                "images": self.images,
            }
            for i in range(len(self.seeds))
        ]

    def load(self, states: list[dict[str, Any]]) -> None:
        for i, state in enumerate(states):
            sums_W3 = torch.tensor(state["sums"], dtype=torch.float64)
            if len(sums_W3) == self.runtime.world:
                self._sums_3S[:, i] = sums_W3[self.runtime.rank]
            elif self.runtime.rank == 0:
                self._sums_3S[:, i] = sums_W3.sum(0)
            for table, key in ((self.best, "best"), (self.last, "last"), (self.failed, "failed")):
                if state[key] is not None:
                    table[i] = state[key]
            self.wall_s, self.train_s, self.images = (state[k] for k in ("wall_s", "train_s", "images"))

    def _gather(self, tensor: Tensor) -> Tensor:
        """One row per rank that shares these seeds."""
        row = tensor.unsqueeze(0)
        return self.runtime.accelerator.gather(row) if self.runtime.world > 1 else row  # type: ignore[return-value]
