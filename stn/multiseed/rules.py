"""Rules for elementwise operations, views and the like on ``Stacked`` tensors.

The seed axis is in front: a dimension that counts from the end stays, others move up by one.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

from stn.multiseed.stacked import ALONE, QUIET, RULES, Stacked, every_of

_OPERATORS = "add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and or xor invert getitem setitem"


def _owners(names: str) -> Iterable[Any]:
    """Every function of these names: torch.add, Tensor.add, Tensor.add_, Tensor.__add__, F.relu."""
    for name in names.split():
        forms = [name, f"{name}_"]
        if name in _OPERATORS.split():
            forms += [f"__{name}__", f"__r{name}__", f"__i{name}__"]
        for owner in (torch, Tensor, F):
            yield from (getattr(owner, form) for form in forms if hasattr(owner, form))


def rule(names: str) -> Callable:
    """Register a rule for every function of these names."""

    def register(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(_owners(names), function))
        return function

    return register


def dim(d: int) -> int:
    return d + 1 if d >= 0 else d


@rule(
    "add sub rsub mul div truediv floordiv mod true_divide divide multiply subtract floor_divide remainder fmod neg "
    "pos abs pow square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 "
    "sinh cosh tanh sigmoid erf relu relu6 gelu silu mish elu selu celu leaky_relu hardtanh hardswish hardsigmoid "
    "hardshrink softshrink tanhshrink threshold softplus softsign logsigmoid clamp clamp_min clamp_max clip minimum "
    "maximum floor ceil round trunc frac sign where nan_to_num lerp addcmul addcdiv hypot isfinite isnan isinf eq ne "
    "lt le gt ge and or xor invert logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_not "
    "to type type_as float double half bfloat16 int long bool detach clone contiguous masked_fill zero fill copy "
    "zeros_like ones_like full_like empty_like"
)
def _elementwise(mode: Any, func: Any, /, *args: Any, **kwargs: Any) -> Any:
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    rank = max([a.dim() for a in tensors])
    # One seed's number does not change the type of the rest, though it takes part in more than half precision.
    numbers = [a for a in tensors if isinstance(a, Stacked) and not a.dim() and a.is_floating_point()] if rank else []
    wide = next((a.dtype for a in tensors if a.dim() and a.is_floating_point()), None) if numbers else None

    def aligned(a: Any) -> Any:
        if not isinstance(a, Stacked) or a.dim() == rank:
            return every_of(a)
        every = a.every.view(len(a.every), *[1] * (rank - a.dim()), *a.shape)
        return every if a.dim() or wide is None else every.to(torch.promote_types(wide, torch.float32))

    if kwargs:
        kwargs.pop("memory_format", None)  # of one seed's tensor: it means nothing here
        kwargs = {key: aligned(a) for key, a in kwargs.items()}
    out = func(*map(aligned, args), **kwargs)
    if out is every_of(args[0]):
        return args[0]
    return Stacked(out.to(wide) if wide is not None and out.is_floating_point() else out)


@rule("view reshape")
def _reshape(mode: Any, func: Any, /, x: Stacked, *shape: Any) -> Any:
    if isinstance(shape[0], torch.dtype):
        return NotImplemented
    sizes = shape[0] if isinstance(shape[0], tuple | list) else shape
    try:
        return Stacked(x.every.view(len(x.every), *sizes))
    except RuntimeError:  # one seed's strides may have allowed it
        x.every = x.every.contiguous()
        return Stacked(x.every.view(len(x.every), *sizes))


def _view_alone(mode: Any, func: Any, /, x: Tensor, *shape: Any) -> Tensor:
    try:
        return x.view(*shape)
    except RuntimeError:  # without channels_last, which the network has not asked for, it would be a view
        return x.reshape(*shape)


ALONE[Tensor.view] = _view_alone
for _query in ["requires_grad", "is_leaf", "is_nested", "is_sparse", "is_quantized", "is_mps", "is_meta"]:
    RULES[getattr(Tensor, _query).__get__] = lambda mode, func, /, x: func(x.every)
for _query in (Tensor.element_size, Tensor.is_complex, torch.is_complex, torch.is_floating_point):
    RULES[_query] = lambda mode, func, /, x: func(x.every)
RULES[Tensor.data.__get__] = lambda mode, func, /, x: Stacked(x.every.data)  # type: ignore[attr-defined]


@rule("flatten")
def _flatten(mode: Any, func: Any, /, x: Stacked, start_dim: int = 0, end_dim: int = -1) -> Stacked:
    return Stacked(x.every.flatten(dim(start_dim), dim(end_dim)))


@rule("permute")
def _permute(mode: Any, func: Any, /, x: Stacked, *dims: Any) -> Stacked:
    order = dims[0] if isinstance(dims[0], tuple | list) else dims
    return Stacked(x.every.permute(0, *map(dim, order)))


@rule("transpose swapaxes")
def _transpose(mode: Any, func: Any, /, x: Stacked, dim0: int, dim1: int) -> Stacked:
    return Stacked(x.every.transpose(dim(dim0), dim(dim1)))


@rule(
    "unbind split chunk unsqueeze softmax log_softmax argmax argmin cumsum logsumexp select narrow sum mean amax amin"
)
def _along(mode: Any, func: Any, /, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Operations along one dimension, which stands where torch documents it."""
    name = func.__name__
    if not isinstance(x, Stacked) or any(isinstance(a, Tensor) for a in args):
        return NotImplemented
    kwargs.pop("_stacklevel", None)  # of F.softmax: where a warning would point
    position = 1 if name in ("split", "chunk") else 0
    if "dim" not in kwargs and len(args) > position:
        kwargs["dim"], args = args[position], args[:position] + args[position + 1 :]
    given = kwargs.get("dim", 0 if name in ("unbind", "split", "chunk") else None)
    if isinstance(given, tuple | list) and given:
        given = [dim(d) for d in given]
    elif isinstance(given, int):
        given = dim(given)
    else:  # over all dimensions
        return NotImplemented
    function = getattr(torch.Tensor, name)
    return tree_map_only(Tensor, Stacked, function(x.every, *args, **(kwargs | {"dim": given})))


@rule("getitem")
def _getitem(mode: Any, func: Any, /, x: Any, index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    if not isinstance(x, Stacked) or any(isinstance(part, Tensor | list) for part in parts):
        return NotImplemented
    return Stacked(x.every[(slice(None), *parts)])


@rule("cat concat stack")
def _cat(mode: Any, func: Any, /, tensors: Any, dim: int = 0) -> Stacked:
    S = next(len(x.every) for x in tensors if isinstance(x, Stacked))
    every = [x.every if isinstance(x, Stacked) else x.expand(S, *x.shape) for x in tensors]
    return Stacked(func(every, dim=dim + 1 if dim >= 0 else dim))


@rule("new_empty new_zeros new_ones new_full")
def _new(mode: Any, func: Any, /, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Each seed has its own: it may be filled with what differs between seeds."""
    shape = args[0] if isinstance(args[0], tuple | list) else args
    rest = args[1:] if shape is args[0] else ()
    return Stacked(func(x.every, (len(x.every), *shape), *rest, **kwargs))


QUIET |= set(
    _owners(
        "squeeze expand expand_as view_as reshape_as unflatten movedim flip getitem setitem sum mean amax amin max min "
        "std var norm all any prod t T mT unfold repeat tile index_select diagonal is_contiguous stride"
    )
) | {Tensor.T.__get__, Tensor.mT.__get__}  # type: ignore[attr-defined]
