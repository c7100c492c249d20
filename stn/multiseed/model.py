"""The networks of a block of seeds as one module, SBCHW -> SBK.

Parameters of all seeds lie in one flat tensor, a block [S, ...] for each, which the optimiser
updates as a whole. S seed, B batch, C channel, H, W, K class.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map_only

from stn.data.rng import initialised
from stn.multiseed.convolution import Convolutions
from stn.multiseed.rules import basic, layers, linear, norms, vision  # noqa: F401  (fill the tables)
from stn.multiseed.stacked import SeedOps, Stacked, for_seeds

Function = Callable[[nn.Module, Tensor], Any]
"""Of a network and images."""
Tensors = dict[str, Tensor]
Output = Tensor | tuple[Tensor, Tensor]
"""Logits, or in training logits and what each image adds to the loss."""


def with_penalty(out: Output) -> tuple[Tensor, Tensor | float]:
    """Return logits and penalty, of networks with and without one."""
    return out if isinstance(out, tuple) else (out, 0.0)


class _Applied(nn.Module):
    """A function of a network, as a module for functional_call."""

    def __init__(self, network: nn.Module, function: Function) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.network, x)


class StackedModel(nn.Module):
    """The networks of several seeds; ``build`` makes one from torch's random state, and the first one's code runs."""

    def __init__(
        self, build: Callable[[], nn.Module], seeds: list[int], device: torch.device | str = "cpu", dtype=torch.float32
    ) -> None:
        super().__init__()
        self.seeds = seeds
        self.compiled: dict[torch.Size, Callable[..., Output]] | None = None
        """Compiled code by batch shape; None: not compiled."""
        self.all_reduce: Callable[[Tensor], Tensor] | None = None
        """Sums a tensor over the ranks that share each batch; None: there is one."""
        self.whole_batch = True
        """Whether a forward pass in training has the whole batch, and not a part of it."""
        self.convolutions = Convolutions("auto")
        self.slow: set[str] = set()
        """Operations of the network that ran without a rule."""
        networks = [initialised(build, seed) for seed in seeds]
        for network in networks:
            network.train()  # may say which parameters are trained
        self._network = [networks[0]]  # in a list: its parameters are not this module's
        self._state_names = list(networks[0].state_dict())
        self.seed_S: Tensor
        self.register_buffer("seed_S", torch.tensor(seeds, device=device), persistent=False)
        self.stacked: dict[str, nn.Parameter] = {}
        """Parameters of all seeds, [S, ...], by the network's own names."""
        self.statistics: Tensors = {}
        """Buffers of all seeds, [S, ...]."""
        self._tensors: Tensors = {}
        """Both, also by the other names of a tensor that the network uses more than once."""
        self._stack(networks, device, dtype)
        self.flatten()

    def _stack(self, networks: list[nn.Module], device: torch.device | str, dtype: torch.dtype) -> None:
        tensors = [dict(chain(network.named_parameters(), network.named_buffers())) for network in networks]
        for name, first in tensors[0].items():
            together = torch.stack([named[name].detach() for named in tensors])
            together = together.to(device, dtype if first.is_floating_point() else first.dtype)
            if isinstance(first, nn.Parameter):
                if not first.is_floating_point():
                    raise ValueError(f"parameter {name} is {first.dtype}; only real floating-point ones can be trained")
                self.stacked[name] = nn.Parameter(together, requires_grad=first.requires_grad)
                self.register_parameter("/" + name.replace(".", "/"), self.stacked[name])
            else:
                self.statistics[name] = together
                self.register_buffer("/" + name.replace(".", "/"), together)  # "/": no attribute of ours
        together_by_id = {id(x): (self.stacked | self.statistics)[name] for name, x in tensors[0].items()}
        parameters = networks[0].named_parameters(remove_duplicate=False)
        for name, x in chain(parameters, networks[0].named_buffers(remove_duplicate=False)):
            self._tensors[name] = together_by_id[id(x)]
        parts = networks[0].named_modules()  # each once, by its first name: a network may use it under several
        held = [(path, {**module._parameters, **module._buffers}) for path, module in parts]
        self._slots = [f"{path}.{key}".lstrip(".") for path, own in held for key, x in own.items() if x is not None]
        networks[0].to("meta")  # what runs with its own weights, as torch.utils.checkpoint does, is to fail

    def flatten(self) -> None:
        """Put all parameters in one tensor; call it again after something has moved them."""
        parameters = self.stacked.values()
        self.flat = torch.cat([p.detach().flatten() for p in parameters])
        for p, part in zip(parameters, self.flat.split([p.numel() for p in parameters]), strict=True):
            p.data = part.view_as(p)

    @property
    def template(self) -> nn.Module:
        """The network whose code runs; its own weights mean nothing."""
        return self._network[0]

    def _call(self, tensors: Tensors, x: Tensor, function: Function | None = None) -> Any:
        """Run the network, or a function of it, with these tensors instead of its own."""
        network = self.template
        network.train(self.training)  # returns what its author likes
        module, prefix = (network, "") if function is None else (_Applied(network, function), "network.")
        bound = {prefix + name: tensors[name] for name in self._slots}
        out = functional_call(module, bound, (x,), tie_weights=False)
        for name in self._slots:
            if bound[prefix + name] is not tensors[name]:  # a buffer that was assigned to, instead of changed in place
                with torch.no_grad():
                    tensors[name].copy_(bound[prefix + name])
        return out

    def _seed_ops(self, seeds: slice, step: int | Tensor, row_B: Tensor) -> SeedOps:
        ops = SeedOps(self.seeds[seeds], self.seed_S[seeds], step, row_B)
        ops.all_reduce, ops.whole_batch, ops.convolve = self.all_reduce, self.whole_batch, self.convolutions
        return ops

    def _run(
        self, tensors: Tensors, x: Tensor, step: int | Tensor, row_B: Tensor, function: Function | None = None
    ) -> Any:
        """Return every seed's output; ``x`` is stacked, or the same images for all."""
        if len(self.seeds) == 1:
            out = self.alone(0, for_seeds(x, 1)[0], step, row_B, tensors, function)
            return tree_map_only(Tensor, lambda y: y.unsqueeze(0), out)
        mode = self._seed_ops(slice(None), step, row_B)
        with mode:
            out = self._call({name: Stacked(together) for name, together in tensors.items()}, x, function)
        self.slow |= mode.slow
        return tree_map_only(Tensor, lambda y: for_seeds(y, len(self.seeds)), out)

    def trace(self, x_SBCHW: Tensor, *clock: Any) -> Callable[..., Output]:
        """Return a pass as operations below autograd: the compiler needs no more, and cannot see through Stacked."""
        # Tracing runs the network once: on copies of the buffers, and after a pass in which convolutions are timed.
        copies = {name: x if x.requires_grad else x.clone() for name, x in self._tensors.items()}
        self._run(copies, Stacked(x_SBCHW), *clock)
        return make_fx(lambda tensors, x, *clock: self._run(tensors, Stacked(x), *clock))(copies, x_SBCHW, *clock)

    def forward(self, x_SBCHW: Tensor, step: int | Tensor, row_B: Tensor) -> Output:
        """Return logits in training mode; random numbers depend on seed, step and row only."""
        if self.compiled is None:
            return self._run(self._tensors, Stacked(x_SBCHW), step, row_B)
        if x_SBCHW.shape not in self.compiled:
            self.compiled[x_SBCHW.shape] = torch.compile(self.trace(x_SBCHW, step, row_B))
        return self.compiled[x_SBCHW.shape](self._tensors, x_SBCHW, step, row_B)

    def alone(
        self, s: int, x: Tensor, step: int | Tensor, row_B: Tensor, of: Tensors | None = None, function: Any = None
    ) -> Any:
        """Run one seed's network as it was written; return its logits, or a function's result on the network."""
        own = {name: together[s] for name, together in (of or self._tensors).items()}
        with self._seed_ops(slice(s, s + 1), step, row_B):
            return self._call(own, x, function)

    def predict(self, x_BCHW: Tensor, row_B: Tensor | None = None) -> Tensor:
        """Return the logits of the same images for every seed; what is drawn for an image depends on its number."""
        return with_penalty(self.inspect(None, x_BCHW, row_B))[0]

    def inspect(self, function: Function | None, x_BCHW: Tensor, row_B: Tensor | None = None) -> Any:
        """Return a function's result on each seed's network (None: its output) and the same images, [S, ...]."""
        row_B = torch.arange(len(x_BCHW), device=x_BCHW.device) if row_B is None else row_B
        return self._run(self._tensors, x_BCHW, 0, row_B, function)

    def count_parameters(self) -> int:
        """Return the number of parameters of one seed."""
        return sum(p[0].numel() for p in self.parameters())

    def weights(self, s: int) -> Tensors:
        """Return one seed's state dict, as its network alone would save it; it shares the memory."""
        return {name: self._tensors[name][s].detach() for name in self._state_names}

    def load_weights(self, s: int, weights: Tensors) -> None:
        own = self.weights(s)
        if differing := own.keys() ^ weights.keys():
            raise ValueError(f"these weights do not fit the network; names that differ: {sorted(differing)}")
        for name, tensor in own.items():
            tensor.copy_(weights[name])
