"""Rules for elementwise operations, views and the like on ``Stacked`` tensors.

The seed axis is in front: a dimension that counts from the end stays, others move up by one.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.multiseed.rules.order import in_memory_order, reshaped
from stn.multiseed.stacked import ALONE, QUIET, RULES, Stacked, count_seeds, every_of, for_seeds, functions


def _every_form(names: str) -> set[Any]:
    """Return every function of these names: torch.add, Tensor.add, Tensor.add_, Tensor.__radd__, F.relu."""
    forms = [f"{name} {name}_" for name in names.split()]
    operators = [f"__{name}__ __r{name}__ __i{name}__" for name in names.split()]
    return functions(" ".join(forms), torch, Tensor, F) | functions(" ".join(operators), Tensor)


def rule(names: str, alone: bool = False) -> Callable:
    """Register a rule for every function of these names; ``alone``: for ordinary tensors too."""

    def register(function: Callable) -> Callable:
        matches = _every_form(names)
        RULES.update(dict.fromkeys(matches, function))
        if alone:
            ALONE.update(matches)
        return function

    return register


def shift(dim: int) -> int:
    """Return a dimension of one seed's tensor as that of all seeds."""
    return dim + 1 if dim >= 0 else dim


def _rank(x: Tensor) -> int:
    """Return the number of dimensions of one seed's tensor."""
    return x.every.dim() - 1 if isinstance(x, Stacked) else x.dim()


@rule(
    "add sub rsub mul div truediv floordiv mod true_divide divide multiply subtract floor_divide remainder fmod neg "
    "pos abs pow square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 "
    "sinh cosh tanh sigmoid erf relu relu6 gelu silu mish elu selu celu leaky_relu hardtanh hardswish hardsigmoid "
    "hardshrink softshrink tanhshrink threshold softplus softsign logsigmoid clamp clamp_min clamp_max clip minimum "
    "maximum floor ceil round trunc frac sign where nan_to_num lerp addcmul addcdiv hypot isfinite isnan isinf eq ne "
    "lt le gt ge and or xor invert logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_not "
    "type float double half bfloat16 int long bool detach clone contiguous masked_fill zero fill copy "
    "zeros_like ones_like full_like empty_like real imag conj angle"
)
def _elementwise(mode: Any, func: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run an elementwise operation, after inserting axes of size 1 behind the seed axis so that tensors broadcast."""
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    rank = max(map(_rank, tensors))
    dtype = _dtype_beside_scalars(tensors) if rank else None

    def aligned(a: Any) -> Any:
        if not isinstance(a, Stacked) or _rank(a) == rank:
            return every_of(a)
        S, *shape = a.every.shape
        every = a.every.view(S, *[1] * (rank - len(shape)), *shape)
        return every if shape or dtype is None else every.to(torch.promote_types(dtype, torch.float32))

    kwargs.pop("memory_format", None)  # of one seed's tensor: it means nothing here
    out = func(*map(aligned, args), **{key: aligned(a) for key, a in kwargs.items()})
    if out is every_of(args[0]):
        return args[0]
    return Stacked(out if dtype is None or not out.is_floating_point() else out.to(dtype))


@rule("to type_as")
def _converted(mode: Any, func: Any, /, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Convert a tensor to a type or to that of another one, with whose seeds and shape it has nothing to do."""
    kwargs.pop("memory_format", None)
    out = func(every_of(x), *map(every_of, args), **{key: every_of(value) for key, value in kwargs.items()})
    if not isinstance(x, Stacked):
        return out
    return x if out is x.every else Stacked(out)


def _dtype_beside_scalars(tensors: list[Tensor]) -> torch.dtype | None:
    """Return the dtype of a floating-point result to which seeds' scalars contribute; None: torch's own rules hold.

    A tensor without dimensions does not decide the dtype of a result, though it takes part in more than half
    precision. Stacked it has a dimension, so torch would let it decide.
    """
    if any(isinstance(x, Stacked) and not _rank(x) and x.is_floating_point() for x in tensors):
        return next((x.dtype for x in tensors if _rank(x) and x.is_floating_point()), None)
    return None


def _in_shape(x: Tensor, sizes: Any) -> Tensor:
    return Stacked(reshaped(x.every, len(x.every), *sizes)) if isinstance(x, Stacked) else reshaped(x, *sizes)


@rule("reshape")
@rule("view", alone=True)
def _reshape(mode: Any, func: Any, /, x: Any, *shape: Any) -> Any:
    """Reshape where a view is asked for: with channels last, which the network has not chosen, it may need a copy."""
    if isinstance(shape[0], torch.dtype):
        return NotImplemented if isinstance(x, Stacked) else func(x, *shape)
    sizes = shape[0] if isinstance(shape[0], tuple | list) else shape
    return _in_shape(x, sizes)


@rule("flatten", alone=True)
def _flatten(mode: Any, func: Any, /, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    rank = input.dim()
    first, last = (dim + rank if dim < 0 else dim for dim in (start_dim, end_dim))
    if not 0 <= first <= last < rank:
        return NotImplemented if isinstance(input, Stacked) else func(input, start_dim, end_dim)
    sizes = *input.shape[:first], math.prod(input.shape[first : last + 1]), *input.shape[last + 1 :]
    return _in_shape(input, sizes)


@rule("transpose swapaxes")
def _transpose(mode: Any, func: Any, /, x: Stacked, dim0: int, dim1: int) -> Stacked:
    return Stacked(x.every.transpose(shift(dim0), shift(dim1)))


@rule("permute")
def _permute(mode: Any, func: Any, /, x: Stacked, *dims: Any) -> Stacked:
    order = dims[0] if isinstance(dims[0], tuple | list) else dims
    return Stacked(x.every.permute(0, *map(shift, order)))


@rule("split chunk")
def _split(mode: Any, func: Any, /, x: Stacked, sizes: Any, dim: int = 0) -> tuple[Stacked, ...]:
    return tuple(map(Stacked, func(x.every, sizes, dim=shift(dim))))


@rule("unbind")
def _unbind(mode: Any, func: Any, /, x: Stacked, dim: int = 0) -> tuple[Stacked, ...]:
    return tuple(map(Stacked, x.every.unbind(shift(dim))))


@rule("unsqueeze softmax log_softmax argmax argmin cumsum logsumexp")
def _along(mode: Any, func: Any, /, x: Stacked, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Run an operation along given dimensions; over all of them vmap runs it."""
    if dim in (None, (), []):
        return NotImplemented
    kwargs.pop("_stacklevel", None)  # of F.softmax: where a warning would point
    dims = shift(dim) if isinstance(dim, int) else [shift(d) for d in dim]
    return Stacked(getattr(Tensor, func.__name__)(x.every, dims, *args, **kwargs))


@rule("sum mean amax amin")
def reduce(mode: Any, func: Any, /, x: Stacked, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """Reduce in memory order, so that the gradient has it, too: mixed, a GELU's gradient takes 13 times longer."""
    if dim in (None, (), []):
        return NotImplemented
    dims = [shift(d) % x.every.dim() for d in ([dim] if isinstance(dim, int) else dim)]
    function = getattr(Tensor, func.__name__)
    out = in_memory_order(lambda y, axes: function(y, [axes.index(d) for d in dims], True, **kwargs), x.every)
    return Stacked(out if keepdim else out.squeeze(tuple(dims)))


@rule("getitem")
def _getitem(mode: Any, func: Any, /, x: Any, index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    if not isinstance(x, Stacked) or any(isinstance(part, Tensor | list) for part in parts):
        return NotImplemented
    return Stacked(x.every[(slice(None), *parts)])


@rule("stack")
def _stack(mode: Any, func: Any, /, tensors: Any, dim: int = 0) -> Stacked:
    S = count_seeds(*tensors)
    return Stacked(torch.stack([for_seeds(x, S) for x in tensors], shift(dim)))


@rule("cat concat")
def _cat(mode: Any, func: Any, /, tensors: Any, dim: int = 0) -> Stacked:
    S = count_seeds(*tensors)
    parts, dim = [for_seeds(x, S) for x in tensors], shift(dim)
    dim = dim % parts[0].dim()
    return Stacked(in_memory_order(lambda *xs: torch.cat(xs[:-1], xs[-1].index(dim)), *parts))


for _flag in ("requires_grad", "is_leaf"):  # the tensor of all seeds has them, the wrapper does not
    RULES[getattr(Tensor, _flag).__get__] = lambda mode, func, /, x: func(x.every)
for _part in ("real", "imag"):
    RULES[getattr(Tensor, _part).__get__] = lambda mode, func, /, x, part=_part: Stacked(getattr(x.every, part))
RULES[Tensor.data.__get__] = lambda mode, func, /, x: Stacked(x.every.data)  # type: ignore[attr-defined]

QUIET |= _every_form(
    "squeeze expand expand_as view_as reshape_as unflatten movedim select narrow flip getitem setitem sum mean "
    "amax amin max min std var norm all any prod t T mT unfold repeat tile index_select diagonal new_empty new_zeros "
    "new_ones new_full"
) | {Tensor.T.__get__, Tensor.mT.__get__}  # type: ignore[attr-defined]
