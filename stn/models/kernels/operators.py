"""Operators of PyTorch for the C functions: what a step is recorded as.

Not torch.library.custom_op, whose first call imports torch._dynamo, which takes two seconds.
"""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("stn", "FRAGMENT")


def operator(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as an operator on a CPU; ``fake`` returns tensors like its results. Autograd is not in it."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = schema.partition("(")[0]
        _LIBRARY.define(schema)
        _LIBRARY.impl(name, function, "CPU")
        torch.library.register_fake(f"stn::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.stn, name).default

    return register
