"""Count what a fused training step does on a GPU, without one: operations, bytes, FLOP, and the time that each needs.

    python benchmarks/floors.py [--networks stn_slx,cnn] [--seeds 64] [--device h100] [--json FILE]

The step runs on torch's meta device: every operation is counted and nothing is computed. An operation that is not a
view counts as one launch (some take two), and each of its tensors is read or written once, as if nothing stayed in a
cache. A floor is the time that a device needs for one of the three alone; a step takes at least the longest.
"""

import sys
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import forms
import torch
import traffic
from configured import configure
from measure import Parser, console, machine, names_from, positive, save
from measured import NETWORKS
from peer_forms import BATCH
from rich.table import Table

LAUNCH_US = 1.5
"""Microseconds between two small kernels of a CUDA graph: about what is published for Hopper, not measured here."""
DEVICES = {"a100": (1.555e12, 19.5e12), "h100": (3.35e12, 66.9e12), "h200": (4.8e12, 66.9e12)}
"""Bytes/s and float32 FLOP/s without tensor cores, from the data sheets (A100 40 GB, H100 SXM, H200)."""


class Counter(traffic.Traffic):
    def __init__(self) -> None:
        super().__init__()
        self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.launches += not func.is_view and func is not torch.ops.aten._unsafe_view.default
        return super().__torch_dispatch__(func, types, args, kwargs)


def count_step(network: str, seeds: int) -> dict[str, float]:
    """Return launches, bytes and FLOP of one step of a batch for each seed."""
    config = configure(*NETWORKS[network])
    with patch("torch.autocast", lambda *_, **__: nullcontext()):  # knows no meta device
        step = forms.fused(config, torch.device("meta"), seeds, bf16=False, graph=False)
        step()  # makes constants
        with Counter() as counter:
            step()
    flop = traffic.work_per_image(config)["flop"] * seeds * BATCH  # of the ordinary network
    return {"launches": counter.launches, "bytes": counter.bytes, "flop": flop}


def floors(counts: dict[str, float], device: str) -> dict[str, float]:
    """Return the milliseconds that launches, bytes and FLOP need on a device."""
    bytes_per_s, flop_per_s = DEVICES[device]
    return {
        "launches_ms": counts["launches"] * LAUNCH_US / 1e3,
        "bytes_ms": 1e3 * counts["bytes"] / bytes_per_s,
        "flop_ms": 1e3 * counts["flop"] / flop_per_s,
    }


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--networks", type=names_from(NETWORKS), default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--seeds", type=positive, default=64)
    parser.add_argument("--device", choices=DEVICES, default="h100")
    arguments = parser.parse_args()
    seeds, device = arguments.seeds, arguments.device
    record = machine(None) | {"seeds": seeds, "batch": BATCH, "device": device, "networks": {}}
    title = f"A step of {seeds} seeds x {BATCH} images on one {device}: counted, not measured"
    table = Table(title=title, title_justify="left")
    for heading in ("network", "launches", "GB", "GFLOP", "ms: launches", "bytes", "FLOP", "images/s at most"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for network in arguments.networks:
        counts = count_step(network, seeds)
        needed = floors(counts, device)
        most = 1e3 * seeds * BATCH / max(needed.values())
        record["networks"][network] = counts | needed | {"images_per_s_at_most": most}
        sizes = f"{counts['bytes'] / 1e9:.2f}", f"{counts['flop'] / 1e9:.1f}"
        times = [f"{ms:.2f}" for ms in needed.values()]
        table.add_row(network, str(counts["launches"]), *sizes, *times, f"{most:,.0f}")
    console.print(table)
    save(arguments.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
