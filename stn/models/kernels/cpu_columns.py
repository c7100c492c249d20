"""The last part of a thin convolution's input gradient on a CPU: the columns' results, added up where they belong.

B batch, D channel, l kernel columns, H x W the input's map, w columns of the output's.
"""

import torch
from torch import Tensor

from stn.models.kernels.compiled import call, fits
from stn.models.kernels.operators import operator


def has_kernel(by_column_BNHw: Tensor) -> bool:
    return by_column_BNHw.is_contiguous(memory_format=torch.channels_last) and fits(by_column_BNHw)


@operator(
    "add_columns(Tensor x, int columns, int W, int padding) -> Tensor",
    lambda x, columns, W, padding: x.new_empty(len(x), x.shape[1] // columns, x.shape[2], W),
)
def add_columns(by_column_BNHw: Tensor, columns: int, W: int, padding: int) -> Tensor:
    """Return the sums over the columns, each shifted by its index; N = D * columns."""
    B, N, H, w = by_column_BNHw.shape
    out = by_column_BNHw.new_empty(B, N // columns, H, W)
    call("add_columns", by_column_BNHw, out, B, H, w, N // columns, columns, W, padding)
    return out
