"""The choice between ways to convolve the maps of several seeds, by timing on the device.

G groups, C channels in, M out, O = G * M, k x l kernel, H x W map.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stn.models import kernels
from stn.multiseed.memory import free_bytes
from stn.multiseed.products import MOST_WASTE, scratch_elements, waste
from stn.multiseed.timing import milliseconds, pass_calls, whole_call
from stn.multiseed.ways import OWN, WHOLE, Way, by_passes, grouped, has_kernel, pair

_COLUMNS_SHARE = 0.05
"""Share of the free memory that a way's matrices may take; the backward pass has two of them."""
FAR = 3
"""Times the fastest way of a pass."""


class Convolutions:
    """How each shape is convolved: one way for all, or (auto, on CUDA) the fastest, timed when it is first met."""

    def __init__(self, wish: Literal["auto"] | Way, tell: Callable[[str], None] = lambda text: None) -> None:
        self.wish, self._tell = wish, tell
        self.chosen: dict[str, str] = {}
        """The way of each shape that was timed; a resumed run keeps it."""
        self._behind: dict[str, set[tuple[str, str]]] = {}
        """Ways that were FAR slower than the fastest in a pass of a layer: not timed again for more seeds."""

    def __call__(
        self, x_BDHW: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Tensor | None:
        """Return the convolution; None where plain conv2d is taken, as for a single group."""
        if groups == 1 or isinstance(padding, str) or (self.wish == "auto" and not x_BDHW.is_cuda):
            return None
        arguments = x_BDHW, weight, bias, pair(stride), pair(padding), pair(dilation)
        name = self._choose(arguments, groups) if self.wish == "auto" else self.wish
        if name in WHOLE or ("triton" in name.split("/") and not has_kernel(arguments, groups)):
            return WHOLE.get(name, grouped)(*arguments, groups=groups)
        return by_passes(name, *arguments, groups=groups)

    def keep(self, chosen: dict[str, str]) -> None:
        """Take the choices of a checkpoint, but for ways that cannot run here."""
        self.chosen |= {key: ways for key, ways in chosen.items() if "triton" not in ways or not kernels.missing()}

    def _choose(self, arguments: tuple, groups: int) -> str:
        x, weight = arguments[:2]
        trains = torch.is_grad_enabled()
        O, C, k, l = weight.shape
        use = ("backward to the image" if x.requires_grad else "backward") if trains else "forward"
        H, W = x.shape[2:]
        key = f"{groups} x {C} to {O // groups} channels, {k}x{l} on {H}x{W}, {str(x.dtype)[6:]}, {use}"
        stride, _, dilation = arguments[3:]
        if (*stride, *dilation) != (1, 1, 1, 1):
            key += f", stride {stride}, dilation {dilation}"
        if key not in self.chosen:
            if torch.cuda.is_current_stream_capturing() or get_proxy_mode() is not None:
                return "channels_last"  # nothing can be timed here
            self.chosen[key] = self._fastest(key, arguments, groups, trains)
        return self.chosen[key]

    def _fastest(self, key: str, arguments: tuple, groups: int, trains: bool) -> str:
        own = [way for way in OWN if _worth_trying(way, arguments, groups)]
        if not self.chosen and (reason := kernels.missing()):
            self._tell(f"convolutions without Triton's kernels: {reason}")
        calls = {"all passes": {name: whole_call(way, arguments, groups, trains) for name, way in WHOLE.items()}}
        calls |= pass_calls(own, arguments, groups, trains)
        behind = self._behind.setdefault(key.partition(" x ")[2], set())
        times = {
            # What a call has made is freed with it.
            part: {way: milliseconds(ways.pop(way)) for way in [*ways] if (part, way) not in behind}
            for part, ways in calls.items()
        }
        shown = [
            f"{part}: " + ", ".join(f"{way} {ms:.2f}" for way, ms in table.items()) for part, table in times.items()
        ]
        whole, best = (
            times.pop("all passes"),
            {part: min(table, key=table.__getitem__) for part, table in times.items()},
        )
        together = sum(times[part][way] for part, way in best.items())
        behind |= {("all passes", way) for way, ms in whole.items() if ms > FAR * together}
        behind |= {
            (part, way) for part in times for way, ms in times[part].items() if ms > FAR * times[part][best[part]]
        }
        fastest = min(whole, key=whole.__getitem__, default="")
        chosen = fastest if fastest and whole[fastest] <= together else "/".join(best.values())
        self._tell(f"convolution of {key}: {chosen} (ms of {'; '.join(shown)})")
        return chosen


def convolutions_for(wish: Literal["auto"] | Way, fixed: bool, tell: Callable[[str], None]) -> Convolutions:
    """Return a run's choice; ``fixed``: nothing may depend on times. ValueError if a wish cannot be met here."""
    if wish == "triton" and (reason := kernels.missing()):
        raise ValueError(f"--train.conv triton: {reason}")
    return Convolutions("grouped" if wish == "auto" and fixed else wish, tell)


def _worth_trying(name: str, arguments: tuple, groups: int) -> bool:
    """Whether a way can be fast, and has matrices that are small beside the free memory: no estimate has them in it."""
    x_BDHW, weight_OCkl = arguments[:2]
    if name == "triton":  # no product of tiles is fast in double precision
        return x_BDHW.dtype != torch.float64 and has_kernel(arguments, groups) and not kernels.missing()
    if name == "grouped":
        return True
    scratch = scratch_elements(x_BDHW, weight_OCkl, name) * x_BDHW.element_size()
    fits = scratch <= _COLUMNS_SHARE * free_bytes(x_BDHW.device)
    return fits and waste(x_BDHW, weight_OCkl, name) <= MOST_WASTE
