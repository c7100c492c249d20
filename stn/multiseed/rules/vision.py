"""Rules for the parts of other vision networks: products, attention, convolutions of other kinds, embeddings.

The rows of all seeds become one batch, or their channels one map. S seed, B batch, C channel.
"""

from string import ascii_letters
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.multiseed.rules.basic import rule, shift
from stn.multiseed.rules.order import flatten_seeds, in_memory_order, side_by_side, split_seeds
from stn.multiseed.stacked import RULES, Stacked, count_seeds, every_of, for_seeds, functions


def _rows_of_all(func: Any, S: int, *args: Any, **kwargs: Any) -> Stacked:
    """Call a function that treats each row by itself with the rows of all seeds."""
    return Stacked(func(*args, **kwargs).unflatten(0, (S, -1)))


# ---- products


@rule("matmul")
def _matmul(mode: Any, func: Any, /, input: Any, other: Any) -> Any:
    a, b = input.dim(), other.dim()
    if min(a, b) < 2:
        return NotImplemented
    S = count_seeds(input, other)
    if b == 2 and a > 2:  # every row times one matrix
        out = torch.bmm(for_seeds(input, S).flatten(1, -2), for_seeds(other, S))
        return Stacked(out.view(S, *input.shape[:-1], -1))

    def aligned(x: Tensor, rank: int) -> Tensor:
        return x.every.view(S, *[1] * (max(a, b) - rank), *x.shape) if isinstance(x, Stacked) else x

    return Stacked(torch.matmul(aligned(input, a), aligned(other, b)))


RULES[Tensor.__matmul__] = RULES[torch.matmul]


@rule("bmm")
def _bmm(mode: Any, func: Any, /, input: Any, mat2: Any) -> Stacked:
    S = count_seeds(input, mat2)
    return _rows_of_all(torch.bmm, S, for_seeds(input, S).flatten(0, 1), for_seeds(mat2, S).flatten(0, 1))


@rule("einsum")
def _einsum(mode: Any, func: Any, /, equation: Any, *operands: Any) -> Any:
    if not isinstance(equation, str) or "->" not in equation:
        return NotImplemented
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    S = next(letter for letter in ascii_letters if letter not in equation)
    inputs, out = equation.replace(" ", "").split("->")
    terms = [S * isinstance(x, Stacked) + term for term, x in zip(inputs.split(","), tensors, strict=True)]
    return Stacked(torch.einsum(f"{','.join(terms)}->{S}{out}", *map(every_of, tensors)))


@rule("scaled_dot_product_attention")
def _attention(
    mode: Any, func: Any, /, query: Any, key: Any, value: Any, attn_mask=None, *how: Any, **named: Any
) -> Any:
    S = count_seeds(query, key, value, attn_mask)
    rows = [for_seeds(x, S).flatten(0, 1) for x in (query, key, value)]
    if attn_mask is not None:
        mask = for_seeds(attn_mask, S)
        mask = mask.view(S, *[1] * (query.dim() - attn_mask.dim()), *attn_mask.shape)
        attn_mask = mask.expand(S, len(query), *mask.shape[2:]).flatten(0, 1)
    return _rows_of_all(F.scaled_dot_product_attention, S, *rows, attn_mask, *how, **named)


# ---- convolutions of other kinds, and patches


@rule("conv1d conv3d")
def _conv(
    mode: Any, func: Any, /, input: Any, weight: Any, bias=None, stride=1, padding=0, dilation=1, groups=1
) -> Any:
    if input.dim() != weight.dim():
        return NotImplemented  # one row without a batch
    S = count_seeds(input, weight, bias)
    x, how = side_by_side(for_seeds(input, S)), (stride, padding, dilation, groups * S)
    return split_seeds(func(x, flatten_seeds(weight, S), flatten_seeds(bias, S), *how), S)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _conv_transpose(
    mode, func, /, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Any:
    if input.dim() != weight.dim():
        return NotImplemented
    S = count_seeds(input, weight, bias)
    x, how = side_by_side(for_seeds(input, S)), (stride, padding, output_padding, groups * S, dilation)
    biases = flatten_seeds(bias, S)
    if biases is None or x.is_cuda:
        return split_seeds(func(x, flatten_seeds(weight, S), biases, *how), S)
    out = func(x, flatten_seeds(weight, S), None, *how)  # a bias doubles oneDNN's time for the filters' gradient
    return split_seeds(out.add_(biases.view(-1, *[1] * (x.dim() - 2))), S)


def _patches(mode: Any, func: Any, /, input: Stacked, *how: Any, **named: Any) -> Stacked:
    """Run F.unfold and F.fold; Tensor.unfold is a view."""
    return _rows_of_all(func, len(input.every), input.every.flatten(0, 1), *how, **named)


RULES.update({F.unfold: _patches, F.fold: _patches})


# ---- the rest


@rule("pad")
def _pad(mode: Any, func: Any, /, input: Stacked, pad: Any, **how: Any) -> Any:
    x, rank = input.every, input.dim()
    if how.get("mode", "constant") != "constant":
        image = len(pad) != 2 * (rank - 2)  # without a batch
        return NotImplemented if image else split_seeds(F.pad(side_by_side(x), pad, **how), len(x))
    by_axis = {rank - i: pad[2 * i : 2 * i + 2] for i in range(len(pad) // 2)}

    def padded(x: Tensor, axes: list[int]) -> Tensor:
        return F.pad(x, [n for axis in reversed(axes) for n in by_axis.get(axis, (0, 0))], **how)

    return Stacked(in_memory_order(padded, x))


@rule("embedding")
def _embedding(
    mode: Any, func: Any, /, input: Any, weight: Any, padding_idx=None, max_norm=None, *how: Any, **named: Any
):
    if (
        padding_idx is not None
        or max_norm is not None
        or any(how[1:])
        or any(named.get(name) for name in ("sparse", "scale_grad_by_freq"))
    ):
        return NotImplemented
    if not isinstance(weight, Stacked):
        return Stacked(F.embedding(input.every, weight))
    S, words = weight.every.shape[:2]
    index = for_seeds(input, S)
    first = torch.arange(S, device=index.device).mul(words).view(S, *[1] * input.dim())
    own = torch.where((index < 0) | (index >= words), -1, index + first)  # no word of another seed
    return Stacked(F.embedding(own, weight.every.flatten(0, 1)))


@rule("roll")
def _roll(mode: Any, func: Any, /, x: Stacked, shifts: Any, dims: Any = None) -> Any:
    if dims in (None, (), []):
        return NotImplemented
    over = [shift(d) % x.every.dim() for d in ([dims] if isinstance(dims, int) else dims)]
    return Stacked(in_memory_order(lambda y, axes: y.roll(shifts, [axes.index(d) for d in over]), x.every))


@rule("normalize")
def _normalize(mode: Any, func: Any, /, input: Stacked, p: float = 2.0, dim: int = 1, *how: Any, **named: Any) -> Any:
    return Stacked(F.normalize(input.every, p, shift(dim), *how, **named))


@rule("prelu")
def _prelu(mode: Any, func: Any, /, input: Any, weight: Any) -> Any:
    if input.dim() < 3 or weight.dim() == 0:
        return NotImplemented
    S = count_seeds(input, weight)
    weights = for_seeds(weight, S).expand(S, input.shape[1])
    return split_seeds(torch.prelu(side_by_side(for_seeds(input, S)), weights.flatten()), S)


def _fourier(mode: Any, func: Any, /, input: Stacked, n: Any = None, dim: Any = -1, norm: Any = None) -> Stacked:
    return Stacked(func(input.every, n, shift(dim), norm))


def _fourier_of_maps(
    mode: Any, func: Any, /, input: Stacked, s: Any = None, dim: Any = (-2, -1), norm: Any = None
) -> Stacked:
    return Stacked(func(input.every, s, [*map(shift, dim)], norm))


RULES.update(dict.fromkeys(functions("fft ifft rfft irfft hfft ihfft", torch.fft), _fourier))
RULES.update(dict.fromkeys(functions("fft2 ifft2 rfft2 irfft2", torch.fft), _fourier_of_maps))
