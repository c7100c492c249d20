"""Where images and the outlines over them lie on a sheet."""

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from stn.evaluation.pictures.sheet import sheet
from stn.evaluation.pictures.subject import strip


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (6, 4)])
@pytest.mark.parametrize("beyond", [0.0, 1.5, 40.0])
def test_an_outline_lies_where_its_pixels_do(shape: tuple[int, int], beyond: float) -> None:
    """Around the whole image, and so far beyond it; what leaves the cell is cut off there."""
    H, W = shape
    x, y = (-0.5 - beyond, W - 0.5 + beyond), (-0.5 - beyond, H - 0.5 + beyond)
    border = torch.tensor([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]], [x[0], y[0]]])
    axis = sheet("", [None, strip("a", torch.zeros(2, 1, H, W), outlines=[border.expand(2, 5, 2)])]).axes[0]
    for j in range(2):
        left, right, below, above = axis.images[j].get_extent()
        line = axis.lines[2 * j]
        pixel = (right - left) / W
        assert (below - above) / H == pytest.approx(pixel)
        xs, ys = (np.asarray(values, float).tolist() for values in line.get_data())
        assert (min(xs), max(xs)) == pytest.approx((left - beyond * pixel, right + beyond * pixel))
        assert (min(ys), max(ys)) == pytest.approx((above - beyond * pixel, below + beyond * pixel))
        frame = axis.patches[j]
        assert isinstance(frame, Rectangle)
        assert line.get_clip_box().bounds == pytest.approx(frame.get_window_extent().bounds)  # type: ignore[union-attr]
        assert frame.get_x() <= left < right <= frame.get_x() + frame.get_width() == pytest.approx(j + 1, abs=0.1)
