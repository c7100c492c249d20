"""What pictures show, without how it is drawn: plain numbers, which a process without PyTorch can draw.

``draw.py`` and ``warps.py`` make them of a run directory and of a network, ``figures.py`` draws them. B batch,
C channel, H, W, K class, N image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Strip(NamedTuple):
    """A row of images in [0, 1], [C, H, W] each."""

    label: str
    images: Sequence[np.ndarray]
    titles: Sequence[str] = ()
    """Over each image."""
    outlines: Sequence[np.ndarray] = ()
    """Closed lines over each image, [B, points, 2] in its pixels."""


class Sheet(NamedTuple):
    """Strips from top to bottom; None leaves a gap."""

    title: str
    strips: list[Strip | None]


class Line(NamedTuple):
    """One seed's values at epochs, of training or of evaluations."""

    evaluation: bool
    epochs: list[float]
    values: list[float]


class Curves(NamedTuple):
    """A chart of lines for each quantity; ``split`` names what the evaluations are of."""

    title: str
    split: str
    charts: dict[str, list[Line]]


class Confusion(NamedTuple):
    """Numbers of images of each class that were taken for each class."""

    title: str
    mean_KK: np.ndarray


class Pose(NamedTuple):
    """Applied and predicted poses of one kind, in one coordinate or two (x, y), and the line through them."""

    label: str
    applied_NK: np.ndarray
    predicted_NK: np.ndarray
    summary: dict[str, float]


class Poses(NamedTuple):
    """A chart for each kind of pose."""

    title: str
    kinds: list[Pose]


Plan = Sheet | Curves | Confusion | Poses
