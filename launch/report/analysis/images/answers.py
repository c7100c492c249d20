"""Reads the answers of architectures to one test set; what is missing or damaged is left out and noted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from launch.report.analysis.cells import Cell
from stn.config.seed_list import format_seeds
from stn.runs.directory import RunDir
from stn.runs.predictions import Answers, KnownImages, hash_of_labels, read_answers, read_images

POSE_TOLERANCE = 1e-3
"""Poses are made in float32, which devices may round differently."""
NO_ANSWERS = "images are not compared: no seed has kept answers to single images, as seeds of older versions have not"


@dataclass
class CellAnswers:
    """What the seeds of one architecture say of each test image."""

    cell: Cell
    seeds: list[int]
    predicted_SN: np.ndarray
    right_SN: np.ndarray
    margin_N: np.ndarray
    """Mean over seeds."""

    @cached_property
    def flips(self) -> float | None:
        """The share of images that two seeds answer differently, mean over pairs of seeds; None of one seed."""
        S, N = self.predicted_SN.shape
        if S < 2:
            return None
        # Of S seeds n_k say k: of all pairs of seeds, n_k (n_k - 1) / 2 agree on that.
        agreeing = 0
        for k in np.unique(self.predicted_SN):
            n_N = (self.predicted_SN == k).sum(0, dtype=np.int64)
            agreeing += int((n_N * (n_N - 1)).sum())
        return 1 - agreeing / (S * (S - 1) * N)

    def of(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the answers of these seeds, and whether they are right."""
        if list(seeds) == self.seeds:  # without a copy
            return self.predicted_SN, self.right_SN
        index = [self.seeds.index(seed) for seed in seeds]
        return self.predicted_SN[index], self.right_SN[index]


@dataclass
class AnsweredSet:
    """A test set, and the architectures that answered to it."""

    label_N: np.ndarray
    known: list[KnownImages]
    """What the run directories know of its images."""
    cells: list[CellAnswers] = field(default_factory=list)

    @property
    def pose(self) -> dict[str, np.ndarray]:
        """The columns of the applied poses by name, [N] each."""
        return dict(zip(self.known[0].pose, self.known[0].pose_NP.T, strict=True))


class _Reader:
    """Reads answers and images of a data set's run directories once, and collects notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._images: dict[RunDir, KnownImages | None] = {}

    def images(self, run: RunDir) -> KnownImages | None:
        if run not in self._images:
            self._images[run] = None
            try:
                self._images[run] = read_images(run.path)
            except ValueError as error:
                self.notes.append(f"{error}; what it says of the test images is read from other runs, if there are any")
        return self._images[run]

    def answers(self, cell: Cell, seed: int) -> tuple[RunDir, Answers] | None:
        """Return a seed's answers and where they are; of several run directories with its row, one is undamaged."""
        row, told = cell.rows[seed], []
        for run in cell.runs:
            if run.seeds is None or seed in run.seeds:
                try:
                    return run, read_answers(run.path, row)
                except ValueError as error:
                    told.append(str(error))
        self.notes += [
            f"{text}; seed {seed} of {cell.label} is left out where images are compared" for text in told[:1]
        ]
        return None


def _same_images(a: KnownImages, b: KnownImages) -> bool:
    same = a.pose == b.pose and a.originals == b.originals and np.array_equal(a.label_N, b.label_N)
    return same and np.allclose(a.pose_NP, b.pose_NP, atol=POSE_TOLERANCE)


def read_test_set(cells: Sequence[Cell]) -> tuple[AnsweredSet | None, list[str]]:
    """Return the answers of one data set's architectures, and notes; no answers where no run has kept any.

    If they were not all tested on the same images, those of the largest number of seeds are compared.
    """
    kept = {id(cell): [s for s, row in sorted(cell.rows.items()) if row.get("predictions")] for cell in cells}
    facts = [cell.rows[seed]["predictions"]["labels_sha256"] for cell in cells for seed in kept[id(cell)]]
    if not facts:
        return None, [NO_ANSWERS] * any(cell.rows for cell in cells)
    (labels, _), *_ = Counter(facts).most_common()
    reader = _Reader()
    known = [images for cell in cells for run in cell.runs if (images := _known(reader, run, cell, labels))]
    if not known:
        return None, [*reader.notes, "images are not compared: no run says what its test images are"]
    test = AnsweredSet(known[0].label_N, [images for images in known if _same_images(known[0], images)])
    for cell in cells:
        if lacking := sorted(cell.rows.keys() - kept[id(cell)]):
            reader.notes.append(f"{cell.label}: seeds {format_seeds(lacking)} kept no answers to single images")
        if answers := _read_cell(reader, cell, kept[id(cell)], labels, test):
            test.cells.append(answers)
    return test, reader.notes


def _known(reader: _Reader, run: RunDir, cell: Cell, labels: str) -> KnownImages | None:
    """Return what a run knows of its images, if it has kept answers and they are to these images."""
    if not any(row.get("predictions") for seed, row in cell.rows.items() if run.seeds is None or seed in run.seeds):
        return None
    images = reader.images(run)
    return images if images is not None and hash_of_labels(images.label_N) == labels else None


def _read_cell(reader: _Reader, cell: Cell, seeds: list[int], labels: str, test: AnsweredSet) -> CellAnswers | None:
    read: dict[int, Answers] = {}
    others = []
    for seed in seeds:
        if cell.rows[seed]["predictions"]["labels_sha256"] != labels:
            others.append(seed)
        elif found := reader.answers(cell, seed):
            run, answers = found
            images = reader.images(run)
            if images is not None and not any(images is known for known in test.known):
                others.append(seed)
            elif len(answers.predicted_N) == len(test.label_N):
                read[seed] = answers
            else:
                others.append(seed)
    if others:
        where = f"{cell.label}: seeds {format_seeds(others)} were tested on other images than the rest"
        reader.notes.append(f"{where}; they are left out where images are compared")
    if not read:
        return None
    predicted_SN = np.stack([answers.predicted_N for answers in read.values()])
    margin_N = np.mean([answers.margin_N for answers in read.values()], axis=0, dtype=np.float64)
    return CellAnswers(cell, list(read), predicted_SN, predicted_SN == test.label_N, np.asarray(margin_N))
