"""Triton kernels where PyTorch's are slow on CUDA. Not every PyTorch has Triton: import them where they are used."""

from functools import cache
from importlib.util import find_spec

import torch


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
