"""Kernels where PyTorch's are slow: Triton's on CUDA, C on a CPU. Not every PyTorch has Triton: import it where needed.

A function returns None where there is no kernel for its arguments.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from stn.models.kernels import compiled, cpu_pooling, cpu_sampling


@cache
def missing() -> str:
    """Try two of the kernels; return why none can run here, or an empty text."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        from stn.models.kernels.pooling import max_pool
        from stn.models.kernels.resampling import resample

        max_pool(torch.ones(1, 1, 2, 2, device="cuda"), 2)
        resample(torch.ones(1, 1, 28, 28, dtype=torch.uint8, device="cuda"), *torch.zeros(2, 1, 28, 28, device="cuda"))
    except Exception as error:  # no C compiler, a device that Triton does not know, a cache that cannot be written
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""


def kind(device: torch.device) -> str:
    """Return what kernels a device has beside PyTorch's: where there are none, last bits are others."""
    if device.type == "cpu":
        return "C" if compiled.missing() is None else "PyTorch"
    return "Triton" if device.type == "cuda" and not missing() else "PyTorch"


def max_pool(x_BDHW: Tensor, k: int) -> Tensor | None:
    """Return the largest pixel of each square of k x k."""
    if x_BDHW.is_cuda and not missing():
        from stn.models.kernels import pooling

        return pooling.max_pool(x_BDHW, k) if pooling.has_kernel(x_BDHW, k) else None
    return cpu_pooling.max_pool(x_BDHW) if cpu_pooling.has_kernel(x_BDHW, k) else None


def sample(
    x_SBCHW: Tensor, grid_SBhw2: Tensor, mode="bilinear", padding_mode="zeros", align_corners=None
) -> Tensor | None:
    """Sample maps of several seeds, as F.grid_sample does each seed's."""
    if (
        mode != "bilinear"
        or padding_mode not in ("zeros", "border")
        or not cpu_sampling.has_kernel(x_SBCHW, grid_SBhw2)
    ):
        return None
    return cpu_sampling.sample(x_SBCHW, grid_SBhw2, padding_mode == "border", bool(align_corners))
