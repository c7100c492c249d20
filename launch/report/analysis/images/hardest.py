"""The test images that are recognised worst, with the answers of every architecture."""

import base64
import io
from typing import NamedTuple

import numpy as np

from launch.report.analysis.images.answers import AnsweredSet, CellAnswers
from launch.report.analysis.tables import Entry, Table
from stn.runs.predictions import hardest

SHOWN, MOST_ANSWERS = 12, 3


class Shown(NamedTuple):
    """An image of which some run has kept the pixels."""

    number: int
    label: int
    pixels: np.ndarray
    """Bytes, [H, W] or [H, W, 3]."""

    @property
    def caption(self) -> str:
        return f"image {self.number:,}, class {self.label}"

    @property
    def url(self) -> str:
        """The image as a data URL."""
        from PIL import Image  # here: a report without answers needs none

        Image.fromarray(self.pixels).save(buffer := io.BytesIO(), format="PNG")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def hardest_images(test: AnsweredSet) -> list[int]:
    """Return the numbers of the hardest images: by the share of right answers, each architecture counting the same."""
    # Rounded: equal shares that were added in another order are a tie, which the margin decides.
    right_N = np.stack([answers.right_SN.mean(0) for answers in test.cells]).mean(0).round(12)
    margin_N = np.stack([answers.margin_N for answers in test.cells]).mean(0)
    ordered = hardest(right_N, margin_N)[:SHOWN]
    return [int(n) for n in ordered if right_N[n] < 1]


def pictures(test: AnsweredSet, numbers: list[int]) -> list[Shown]:
    """Return those of these images that some run shows."""
    pixels = {int(n): x for known in test.known for n, x in zip(known.number_M, known.pixels_MCHW, strict=True)}
    return [Shown(n, int(test.label_N[n]), _as_picture(pixels[n])) for n in numbers if n in pixels]


def _as_picture(x_CHW: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x_CHW.transpose(1, 2, 0)) if len(x_CHW) == 3 else x_CHW[0]


def _said(answers: CellAnswers, number: int) -> str:
    """Return the answers of an architecture's seeds to one image, the most frequent first."""
    classes, counts = np.unique(answers.predicted_SN[:, number], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_ANSWERS]
    if len(answers.seeds) == 1:
        return str(classes[0])
    return ", ".join(f"{classes[i]} ({100 * counts[i] / len(answers.seeds):.0f} %)" for i in order)


def hardest_table(test: AnsweredSet, numbers: list[int]) -> Table:
    """Return a row for each of these images: its class, and what every architecture's seeds say."""
    rows = []
    for n in numbers:
        row = [Entry(f"{n:,}", n), Entry(str(test.label_N[n]), int(test.label_N[n]))]
        shares = [float(answers.right_SN[:, n].mean()) for answers in test.cells]
        rows.append(row + [Entry(_said(a, n), share) for a, share in zip(test.cells, shares, strict=True)])
    return Table(["image", "class", *(answers.cell.label for answers in test.cells)], rows)
