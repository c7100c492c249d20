"""Tensors in the orders of memory that the kernels for CPUs take."""

import torch
from torch import Tensor


def maps(S: int, B: int, C: int, H: int, W: int) -> Tensor:
    """Return feature maps of several seeds, those of one image side by side in each pixel."""
    return torch.randn(B, H, W, S, C).permute(3, 0, 4, 1, 2)
