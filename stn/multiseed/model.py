"""The networks of a block of seeds as one module, SBCHW -> SBK.

Parameters of all seeds lie in one flat tensor, a block [S, ...] for each, which the optimiser
updates as a whole. S seed, B batch, C channel, H, W, K class.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map, tree_map_only

from stn.data.rng import Site, derived_seed
from stn.multiseed import layers, rules  # noqa: F401  (fill the tables)
from stn.multiseed.stacked import SeedOps, Stacked

Output = Tensor | tuple[Tensor, Tensor]
"""Logits, or in training logits and what each image adds to the loss."""


def with_penalty(out: Output) -> tuple[Tensor, Tensor | float]:
    """Logits and penalty, of networks with and without one."""
    return out if isinstance(out, tuple) else (out, 0.0)


class StackedModel(nn.Module):
    """The networks of several seeds; ``build`` makes one from torch's random state, and the first one's code runs."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: list[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.seeds = seeds
        self.compiled: dict[torch.Size, Callable[..., Output]] | None = None
        """Compiled code by batch shape; None: not compiled."""
        self.slow: dict[str, str] = {}
        """Operations of the network without a rule, and how they were run."""
        networks = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(seed, Site.INIT))
                networks.append(build())
        self._network = [networks[0]]  # in a list: its parameters are not this module's
        self.seed_S: Tensor
        self.register_buffer("seed_S", torch.tensor(seeds, device=device), persistent=False)
        self.stacked: dict[str, nn.Parameter] = {}
        """Parameters of all seeds, [S, ...], by the network's own names."""
        self.statistics: dict[str, Tensor] = {}
        """Buffers of all seeds, [S, ...]."""
        self._stack(networks, device, dtype)
        self._slots = list(self._find_slots())
        self._kept = list(networks[0].state_dict())

    def _stack(self, networks: list[nn.Module], device: torch.device | str, dtype: torch.dtype) -> None:
        parameters = [dict(network.named_parameters()) for network in networks]
        for name, one in parameters[0].items():
            together = torch.stack([p[name].detach() for p in parameters]).to(device, dtype)
            self.stacked[name] = nn.Parameter(together, requires_grad=one.requires_grad)
            self.register_parameter(name.replace(".", "/"), self.stacked[name])
        self.flatten()
        buffers = [dict(network.named_buffers()) for network in networks]
        for name, one in buffers[0].items():
            together = torch.stack([b[name] for b in buffers]).to(
                device, dtype if one.is_floating_point() else one.dtype
            )
            self.statistics[name] = together
            self.register_buffer(name.replace(".", "/"), together)

    def flatten(self) -> None:
        """Put all parameters in one tensor; call it again after something has moved them."""
        parameters = self.stacked.values()
        self.flat = torch.cat([p.detach().flatten() for p in parameters])
        for p, part in zip(parameters, self.flat.split([p.numel() for p in parameters]), strict=True):
            p.data = part.view_as(p)

    def _find_slots(self) -> Iterator[tuple[dict[str, Any], str, str, Tensor]]:
        """Yield where the network keeps each tensor, including one that it keeps in two places."""
        network = self._network[0]
        names = {id(x): name for name, x in (*network.named_parameters(), *network.named_buffers())}
        for prefix, module in network.named_modules():
            for table, ours in ((module._parameters, self.stacked), (module._buffers, self.statistics)):
                for key, x in table.items():
                    if x is not None:
                        yield table, key, f"{prefix}.{key}".removeprefix("."), ours[names[id(x)]]

    @contextmanager
    def _bound(self, values: list[Tensor]) -> Iterator[nn.Module]:
        """Run the network with these values in place of its own tensors."""
        network = self._network[0].train(self.training)
        for (table, key, _, _), value in zip(self._slots, values, strict=True):
            table[key] = value
        yield network
        for (table, key, _, _), value in zip(self._slots, values, strict=True):
            if table[key] is not value:  # a buffer that was assigned to, instead of changed in place
                with torch.no_grad():
                    value.copy_(table[key])

    def _tensors(self) -> list[Tensor]:
        return [together for _, _, _, together in self._slots]

    def _run(self, tensors: list[Tensor], x_SBCHW: Tensor, step: int | Tensor, row_B: Tensor) -> Output:
        if len(self.seeds) == 1:
            return tree_map(lambda x: x.unsqueeze(0), self.alone(0, x_SBCHW[0], step, row_B, tensors))
        mode = SeedOps(self.seeds, self.seed_S, step, row_B)
        with mode, self._bound(list(map(Stacked, tensors))) as network:
            out = network(Stacked(x_SBCHW))
        self.slow |= mode.slow
        return tree_map_only(Stacked, lambda x: x.every, out)

    def forward(self, x_SBCHW: Tensor, step: int | Tensor, row_B: Tensor) -> Output:
        """Return logits in training mode; random numbers depend on seed, step and row only."""
        given = self._tensors(), x_SBCHW, step, row_B
        if self.compiled is None:
            return self._run(*given)
        if x_SBCHW.shape not in self.compiled:
            # The compiler cannot see through Stacked, but needs only the operations that it comes to.
            copies = [x if x.requires_grad else x.clone() for x in given[0]]  # tracing runs the network once
            traced = make_fx(lambda tensors, x, step, row: self._run(tensors, x, step, row))(copies, *given[1:])
            self.compiled[x_SBCHW.shape] = torch.compile(traced)
        return self.compiled[x_SBCHW.shape](*given)

    def alone(
        self, s: int, x_BCHW: Tensor, step: int | Tensor, row_B: Tensor, tensors: list[Tensor] | None = None
    ) -> Output:
        """Return the logits of one seed, its network run as it was written."""
        ops = SeedOps(self.seeds[s : s + 1], self.seed_S[s : s + 1], step, row_B)
        with ops, self._bound([together[s] for together in tensors or self._tensors()]) as network:
            return network(x_BCHW)

    def predict(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits of the same images for every seed."""
        row_B = torch.arange(len(x_BCHW), device=x_BCHW.device)
        if len(self.seeds) == 1:
            return with_penalty(self.alone(0, x_BCHW, 0, row_B))[0].unsqueeze(0)
        with SeedOps(self.seeds, self.seed_S, 0, row_B), self._bound(list(map(Stacked, self._tensors()))) as network:
            out = network(x_BCHW)
        return out.every if isinstance(out, Stacked) else out.expand(len(self.seeds), *out.shape)

    def network(self, s: int) -> nn.Module:
        """Return one seed's network for inspection; it shares the weights until the next call."""
        with self._bound([together[s] for together in self._tensors()]) as network:
            return network

    def count(self) -> int:
        """Return the number of parameters of one seed."""
        return sum(p[0].numel() for p in self.parameters())

    def weights(self, s: int) -> dict[str, Tensor]:
        """Return one seed's state dict, as its network alone would save it; it shares the memory."""
        return {name: together[s].detach() for _, _, name, together in self._slots if name in self._kept}

    def load_weights(self, s: int, weights: dict[str, Tensor]) -> None:
        own = self.weights(s)
        if own.keys() != weights.keys():
            raise ValueError(
                f"these weights do not fit the network; names that differ: {sorted(own.keys() ^ weights.keys())}"
            )
        for name, tensor in own.items():
            tensor.copy_(weights[name])
