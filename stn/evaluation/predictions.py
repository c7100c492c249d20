"""Save each network's answer to every test image, class and margin, for reports that pair by image.

S seed, B this rank's test images, N all of them, K class, P number of a pose.
"""

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stn.data.stream import Stream
from stn.evaluation.metrics import gather_rows
from stn.runs import predictions
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial, group_by_run
from stn.training.runtime import Runtime

SHOWN, MOST_BYTES, FEWEST = 48, 400_000, 12
"""Hardest images whose pixels a run keeps; fewer where they are large, but not fewer than FEWEST."""


class RankAnswers(NamedTuple):
    """The answers of all seeds to each of this rank's test images."""

    predicted_SB: Tensor
    margin_SB: Tensor
    """Probability of the true class less the largest other one."""
    label_B: Tensor
    pose_BP: Tensor

    @classmethod
    def of(cls, logits_SBK: Tensor, label_B: Tensor, pose_BP: Tensor) -> "RankAnswers":
        """Return the answers of all seeds to one batch."""
        p_SBK = logits_SBK.double().softmax(-1)
        true_SB1 = label_B.expand(len(p_SBK), -1).unsqueeze(-1)
        margin_SB = p_SBK.gather(-1, true_SB1).squeeze(-1) - p_SBK.scatter(-1, true_SB1, -1.0).amax(-1)
        return cls(logits_SBK.argmax(-1).int(), margin_SB.float(), label_B.int(), pose_BP.float())

    @classmethod
    def joined(cls, batches: "Sequence[RankAnswers]", seeds: int, device: torch.device, pose: int) -> "RankAnswers":
        """Return the answers to several batches; a rank may have none."""
        whole = torch.zeros(seeds, 0, device=device)
        none = cls(whole.int(), whole, whole[0].int(), torch.zeros(0, pose, device=device))
        predicted, margin, label, poses = zip(none, *batches, strict=True)
        return cls(torch.cat(predicted, 1), torch.cat(margin, 1), torch.cat(label), torch.cat(poses))

    def of_all_ranks(self, total: int, runtime: Runtime) -> "list[np.ndarray]":
        """Return classes [S, N], margins [S, N], labels [N] and poses [N, P] of the whole test set; collective."""
        parts = self.predicted_SB, self.margin_SB, self.label_B[None], self.pose_BP[None]
        predicted, margin, label, pose = (
            (gather_rows(part, total, runtime) if part[0].numel() or runtime.world > 1 else part).cpu().numpy()
            for part in parts
        )
        return [predicted, margin, label[0], pose[0]]


def save_predictions(
    trials: list[Trial], answers: RankAnswers | None, stream: Stream, runtime: Runtime, failed: Container[int] = ()
) -> list[Row]:
    """Write the answers of the final weights; return fields for the result rows of those that are alive; collective.

    ``answers`` are those of the evaluation after the last step; None if all seeds have failed before.
    """
    fields: list[Row] = [{} for _ in trials]
    if answers is None or all(s in failed for s in range(len(trials))):
        return fields
    predicted_SN, margin_SN, label_N, pose_NP = answers.of_all_ranks(stream.test_count, runtime)
    if not runtime.writes:
        return fields
    for s, trial in enumerate(trials):
        if s not in failed:
            own = predictions.Answers(predicted_SN[s], margin_SN[s])
            fields[s] = predictions.write_answers(trial.run, trial.seed, own, label_N)
    for group in group_by_run(trials):
        _write_images(group[0].run, stream, label_N, pose_NP)
    return fields


def _write_images(run: RunDir, stream: Stream, label_N: np.ndarray, pose_NP: np.ndarray) -> None:
    """Write labels and poses of the test images, and the pixels of those hardest for the seeds so far."""
    seeds = predictions.all_answers(run.path, len(label_N))
    if not seeds:
        return
    right_N = np.stack([answers.predicted_N == label_N for answers in seeds]).mean(0)
    margin_N = np.stack([answers.margin_N for answers in seeds]).mean(0, dtype=np.float64)
    shown = min(SHOWN, max(FEWEST, MOST_BYTES // int(np.prod(stream.dataset.shape))))
    number_M = predictions.hardest(right_N, margin_N)[:shown]
    x_MCHW = stream.as_image(stream.test_images(torch.from_numpy(number_M).to(stream.device)).x_BCHW)
    pixels = (255 * x_MCHW.clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
    originals = min(stream.test_originals, len(label_N))
    images = predictions.KnownImages(label_N, pose_NP, stream.dataset.pose, originals, number_M, pixels)
    predictions.write_images(run, images)
