"""A tensor of all seeds that shows the shape of one seed, and the mode that runs operations on it.

An operation runs by a rule (``rules/``), else by ``torch.vmap``: the same result, more slowly. An operation that
neither can run raises an error. S seed, the first dimension of ``every``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        return run_operation(None, func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError(f"{func} was reached with the tensors of several seeds at once")


RULES: dict[Any, Callable[..., Any]] = {}
"""Operation -> (mode, operation, its arguments) -> result; NotImplemented where the rule does not fit."""
DEVICE_FAULTS = ("OutOfMemory", "CUDA", "cuDNN", "CUBLAS", "32Bit", "32 bit", "32-bit")
"""Parts of errors of a device: after them a rule must not fall back to vmap."""

ALONE: set[Any] = set()
"""Operations whose rule replaces them for the ordinary tensors of one seed as well."""

QUIET: set[Any] = set()
"""Operations that vmap runs nearly as fast as a rule: views and reductions."""


def functions(names: str, *owners: Any) -> set[Any]:
    """Return the functions that these owners have under these names."""
    return {getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)}


_PROPERTIES = "shape dtype device ndim layout is_cuda is_mps is_meta is_nested is_sparse is_quantized"
METADATA = {getattr(Tensor, name).__get__ for name in _PROPERTIES.split()} | functions(
    "size dim numel __len__ __hash__ stride is_contiguous element_size is_floating_point is_complex", torch, Tensor
)
"""Operations that see the shape and type of one seed's tensor, and no values."""

VALUES = functions(
    "item tolist numpy equal allclose is_nonzero __bool__ __int__ __float__ __index__ __contains__", torch, Tensor
)
"""Operations that read a value into Python: ambiguous across seeds."""

RANDOM = functions(
    "rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like randint_like rrelu normal_ "
    "uniform_ bernoulli_ exponential_ cauchy_ geometric_ log_normal_ random_ gumbel_softmax alpha_dropout binomial "
    "feature_alpha_dropout fractional_max_pool2d fractional_max_pool3d _standard_gamma _sample_dirichlet lstm gru "
    "scaled_dot_product_attention multi_head_attention_forward rnn_tanh rnn_relu",
    torch,
    Tensor,
    F,
)
"""Operations that (may) draw from torch's own generator."""


def every_of(value: Any) -> Any:
    return value.every if isinstance(value, Stacked) else value


def count_seeds(*values: Any) -> int:
    return next(len(value.every) for value in values if isinstance(value, Stacked))


def for_seeds(x: Tensor, S: int) -> Tensor:
    """Return a tensor for every seed, [S, ...]; a constant is the same for all."""
    return x.every if isinstance(x, Stacked) else x.expand(S, *x.shape)


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation may draw from torch's generator."""
    attention = func is F.scaled_dot_product_attention
    return func in RANDOM and not (attention and not kwargs.get("dropout_p") and not any(args[4:5]))


def run_operation(mode: "SeedOps | None", func: Any, args: Any, kwargs: Any) -> Any:
    """Run one operation that has stacked tensors among its arguments."""
    if func in METADATA:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    name = _name(func)
    if func in VALUES:
        raise TypeError(f"{name} reads a value of a tensor, which differs between seeds")
    in_place = name.startswith(("__i", "__setitem")) if name.endswith("__") else name.endswith("_")
    if in_place and args and isinstance(args[0], Tensor) and not isinstance(args[0], Stacked):
        raise TypeError(f"{name} would change a tensor that all seeds share")
    try:
        result = RULES[func](mode, func, *args, **kwargs) if func in RULES else NotImplemented
    except (TypeError, RuntimeError, IndexError, ValueError) as error:  # arguments that the rule was not written for
        if any(word in repr(error) for word in DEVICE_FAULTS):
            raise
        result = NotImplemented
    if result is not NotImplemented:
        return result
    try:
        result = _vmapped(func, args, kwargs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(f"{name} cannot run for several seeds at once: {str(error).splitlines()[0]}") from error
    if mode is not None and func not in QUIET:
        mode.slow.add(name)
    return result


def _vmapped(func: Any, args: Any, kwargs: Any) -> Any:
    leaves, tree = tree_flatten((args, kwargs))
    in_dims = tuple(0 if isinstance(leaf, Stacked) else None for leaf in leaves)

    def run_for_one_seed(*leaves: Any) -> Any:
        args, kwargs = tree_unflatten(list(leaves), tree)
        result = func(*args, **kwargs)
        return () if result is None else result  # of __setitem__; vmap wants tensors

    result = torch.vmap(run_for_one_seed, in_dims)(*map(every_of, leaves))
    return tree_map_only(Tensor, Stacked, result)


class SeedOps(TorchFunctionMode):
    """Makes random operations functions of (seed, step, call, row); ``step`` may be a tensor, to be replayed."""

    def __init__(self, seeds: list[int], seed_S: Tensor, step: int | Tensor, row_B: Tensor) -> None:
        super().__init__()
        self.all_reduce: Callable[[Tensor], Tensor] | None = None  # sums over the ranks that share the batch
        self.whole_batch = True  # whether the rows, of all ranks, are a whole batch: batch norm needs it
        self.convolve: Callable[..., Tensor | None] = lambda *arguments: None
        self.seeds, self.seed_S, self.step, self.row_B, self.calls = seeds, seed_S, step, row_B, 0
        self.slow: set[str] = set()
        """Operations that ran without a rule."""
        self._generator_state: Tensor | None = None

    def mask(self, x: Tensor, shape: torch.Size, p: float) -> Tensor:
        """Return a dropout mask, 0 or 1 / (1 - p), also where the network has split rows in parts."""
        per_row, rest = divmod(len(x), len(self.row_B))
        row_B = self.row_B if not rest else self.row_B[:1] * len(x) + torch.arange(len(x), device=x.device)  # no batch
        self.calls += 1
        n = (1 if rest else per_row) * shape.numel()
        stacked = isinstance(x, Stacked)
        seed = self.seed_S.view(-1, 1, 1) if stacked else self.seed_S[0]
        drop = Draws(seed, Site.DROPOUT, self.calls, self.step, device=x.device).chance(row_B, n, p)
        keep = drop.logical_not_().view(*drop.shape[:-2], len(x), *shape)
        if shape == x.shape[1:]:  # in memory as x is, channels last or not: mixed, they multiply half as fast
            keep = torch.empty_like(every_of(x), dtype=torch.bool).copy_(keep)
        keep = keep.to(x.dtype).mul_(1 / (1 - p) if p < 1 else 0)
        return Stacked(keep) if stacked else keep

    @contextmanager
    def _torchs_generator(self) -> Iterator[None]:
        """Make torch's generator a function of (seed, step, first row) during one operation, and restore it."""
        device = self.row_B.device
        generator = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
        outside = generator.get_state()
        if self._generator_state is None:
            generator.manual_seed(derived_seed(self.seeds[0], Site.OTHER, int(self.step), int(self.row_B[0])))
        else:
            generator.set_state(self._generator_state)
        try:
            yield
        finally:
            self._generator_state = generator.get_state()
            generator.set_state(outside)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if draws(func, args, kwargs):
            if len(self.seeds) > 1:
                raise RuntimeError(f"{_name(func)} draws from torch's generator, which seeds would share")
            with self._torchs_generator():
                return func(*args, **kwargs)
        if Stacked in types:
            return run_operation(self, func, args, kwargs)
        return RULES[func](self, func, *args, **kwargs) if func in ALONE else func(*args, **kwargs)
