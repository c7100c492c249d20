"""A tensor of all seeds that shows the shape of one seed, and the mode that runs operations on it.

An operation runs by a rule (``rules``, ``layers``), else by ``torch.vmap``, else in a loop over seeds: the same
result, more slowly. S seed, the first dimension of ``every``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from stn.data.rng import Draws, Site, derived_seed


class Stacked(Tensor):
    """``every`` is [S, ...] with any strides; shape, type and device are those of one seed's tensor."""

    every: Tensor

    @staticmethod
    def __new__(cls, every: Tensor) -> "Stacked":
        self = Tensor._make_wrapper_subclass(cls, every.shape[1:], dtype=every.dtype, device=every.device)  # type: ignore[attr-defined]
        self.every = every
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(None, func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError(f"{func} was reached with the tensors of several seeds at once")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Stacked({self.every!r})"


METADATA: set[Any] = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout")),
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "__len__", "is_floating_point", "__hash__")),
}

RULES: dict[Any, Callable[..., Any]] = {}
"""Operation -> (mode, operation, its arguments) -> result; NotImplemented where the rule does not fit."""

ALONE: dict[Any, Callable[..., Any]] = {}
"""The same for tensors of one seed."""

_ASKING = "item tolist numpy equal allclose is_nonzero __bool__ __int__ __float__ __index__ __contains__"
VALUES: set[Any] = {
    getattr(owner, name) for owner in (torch, Tensor) for name in _ASKING.split() if hasattr(owner, name)
}
"""Operations that read a value into Python: ambiguous across seeds."""

QUIET: set[Any] = set()
"""Operations that vmap runs as fast as a rule: views and reductions."""

_DRAWING = (
    "rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like randint_like rrelu normal_ "
    "uniform_ bernoulli_ exponential_ cauchy_ geometric_ log_normal_ random_ gumbel_softmax alpha_dropout "
    "feature_alpha_dropout fractional_max_pool2d scaled_dot_product_attention multi_head_attention_forward lstm gru "
    "rnn_tanh rnn_relu"
)
RANDOM: set[Any] = {
    getattr(owner, name) for owner in (torch, Tensor, F) for name in _DRAWING.split() if hasattr(owner, name)
}
"""Operations that (may) draw from torch's own generator."""


def every_of(value: Any) -> Any:
    return value.every if isinstance(value, Stacked) else value


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _draws(func: Any, kwargs: Any) -> bool:
    return func in RANDOM and (func is not F.scaled_dot_product_attention or bool(kwargs.get("dropout_p")))


def _keep_apart(func: Any, args: Any) -> None:
    """Raise TypeError where an in-place operation would change a tensor that all seeds share."""
    name = _name(func)
    in_place = name.endswith("_") if not name.endswith("__") else name.startswith(("__i", "__setitem"))
    if in_place and args and isinstance(args[0], Tensor) and not isinstance(args[0], Stacked):
        raise TypeError(f"{name} would change a tensor that all seeds share")


def run(mode: "SeedOps | None", func: Any, args: Any, kwargs: Any) -> Any:
    """Run one operation that has stacked tensors among its arguments."""
    if func in METADATA:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if func in VALUES:
        raise TypeError(f"{func.__name__} reads a value of a tensor, and each seed has its own")
    _keep_apart(func, args)
    rule = RULES.get(func)
    if rule is not None:
        try:
            result = rule(mode, func, *args, **kwargs)
        except torch.OutOfMemoryError:  # a RuntimeError, which would silently fall through to the slower ways
            raise
        except (TypeError, RuntimeError, IndexError, ValueError):  # arguments that the rule was not written for
            result = NotImplemented
        if result is not NotImplemented:
            return result
    if not _draws(func, kwargs):
        try:
            result = _vmapped(func, args, kwargs)
            if mode is not None and func not in QUIET:
                mode.slow[_name(func)] = "vmap"
            return result
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):  # no rule for it there, or it asks for a value
            pass
    return _looped(mode, func, args, kwargs)


def _vmapped(func: Any, args: Any, kwargs: Any) -> Any:
    leaves, tree = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Stacked)]

    def of_one(*tensors: Tensor) -> Any:
        given = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        args, kwargs = tree_unflatten(given, tree)
        return func(*args, **kwargs)

    return tree_map_only(Tensor, Stacked, torch.vmap(of_one)(*(leaves[i].every for i in places)))


def _looped(mode: "SeedOps | None", func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation seed by seed, each with the random state that it has alone."""
    leaves, tree = tree_flatten((args, kwargs))
    S = next((len(leaf.every) for leaf in leaves if isinstance(leaf, Stacked)), 0) or len(mode.seeds)  # type: ignore[union-attr]
    results = []
    for s in range(S):
        given = [leaf.every[s] if isinstance(leaf, Stacked) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(given, tree)
        with mode.torchs_generator(s) if mode is not None and _draws(func, kwargs) else nullcontext():
            results.append(func(*args, **kwargs))
    if mode is not None and func not in QUIET:
        mode.slow[_name(func)] = "a loop over seeds"
    flat, trees = zip(*(tree_flatten(result) for result in results), strict=True)
    return tree_unflatten([_together(func, values) for values in zip(*flat, strict=True)], trees[0])


def _together(func: Any, values: tuple) -> Any:
    if isinstance(values[0], Tensor):
        return Stacked(torch.stack(values))
    if any(value != values[0] for value in values):
        raise TypeError(f"{func.__name__} gives each seed something else: {values}")
    return values[0]


class SeedOps(TorchFunctionMode):
    """Makes random operations functions of (seed, step, call, row), alone or stacked.

    ``step`` is a number, or a tensor where it may be replayed or compiled.
    """

    def __init__(self, seeds: list[int], seed_S: Tensor, step: int | Tensor, row_B: Tensor) -> None:
        super().__init__()
        self.seeds, self.seed_S, self.step, self.row_B, self.calls = seeds, seed_S, step, row_B, 0
        self.slow: dict[str, str] = {}
        """Operations without a rule, and how they were run."""
        self._states: dict[int, Tensor] = {}

    def mask(self, x: Tensor, shape: torch.Size, p: float) -> Tensor:
        """Return a dropout mask, 0 or 1 / (1 - p), also where the network has split rows in parts."""
        each, rest = divmod(len(x), len(self.row_B))
        assert rest == 0, "dropout over a dimension that is not made of whole rows"
        self.calls += 1
        n = each * shape.numel()
        stacked = isinstance(x, Stacked)
        seed = self.seed_S.view(-1, 1, 1) if stacked else self.seed_S[0]
        drop = Draws(seed, Site.DROPOUT, self.calls, self.step, device=x.device).chance(self.row_B, n, p)
        keep = drop.logical_not_().view(*drop.shape[:-2], len(x), *shape)
        if shape == x.shape[1:]:  # in memory as x is, channels last or not: mixed, they multiply half as fast
            keep = torch.empty_like(every_of(x), dtype=torch.bool).copy_(keep)
        keep = keep.to(x.dtype).mul_(1 / (1 - p))
        return Stacked(keep) if stacked else keep

    @contextmanager
    def torchs_generator(self, s: int) -> Iterator[None]:
        """torch's own generator as seed s has it, alone or beside others: seeded anew at every forward pass."""
        device = self.row_B.device
        generator = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
        outside = generator.get_state()
        if s in self._states:
            generator.set_state(self._states[s])
        else:
            generator.manual_seed(derived_seed(self.seeds[s], Site.OTHER, int(self.step), int(self.row_B[0])))
        try:
            yield
        finally:
            self._states[s] = generator.get_state()
            generator.set_state(outside)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if Stacked in types:
            return run(self, func, args, kwargs)
        if func in ALONE:
            return ALONE[func](self, func, *args, **kwargs)
        if _draws(func, kwargs):
            if len(self.seeds) > 1:
                _keep_apart(func, args)
                return _looped(self, func, args, kwargs)
            with self.torchs_generator(0):
                return func(*args, **kwargs)
        return func(*args, **kwargs)
