"""Operators of PyTorch for functions of our own: a step is recorded as these, and torch.compile traces none of them.

Not torch.library.custom_op, whose first call imports torch._dynamo, which takes two seconds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("stn", "FRAGMENT")
Function = Callable[..., Any]


def operator(schema: str, fake: Function, device: str = "CPU") -> Callable[[Function], OpOverload]:
    """Register a function as an operator; ``fake`` returns tensors like its results. Autograd is not in it.

    A name alone has the schema of the function's annotations."""

    def register(function: Function) -> OpOverload:
        name, given, _ = schema.partition("(")
        _LIBRARY.define(schema if given else name + torch.library.infer_schema(function, mutates_args=()))
        _LIBRARY.impl(name, function, device)
        torch.library.register_fake(f"stn::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.stn, name).default

    return register


on_any_device = partial(operator, device="CompositeExplicitAutograd")


def differentiate(name: str, backward: Function, setup_context: Function) -> None:
    """Give an operator its derivative."""
    torch.library.register_autograd(f"stn::{name}", backward, setup_context=setup_context, lib=_LIBRARY)
