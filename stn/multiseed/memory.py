"""How much memory a pass takes, and how much of it there may be."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOST_ELEMENTS = 2**31 - 1
"""Elements of the largest tensor: CUDA kernels that index with 32 bits refuse larger ones."""
MOST_CACHED = 2**30
"""Bytes in reserve that are worth keeping between one use of memory and another."""
SHARE = 0.5
"""Share of the free memory that a block may take."""


class Allocations(TorchDispatchMode):
    """Counts what operations allocate: bytes in all, and the elements of the largest tensor. Views do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.elements = 0, 1

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import torch._dynamo for it, which takes two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in [] if func.is_view else tree_leaves(out):
            if isinstance(x, Tensor):
                self.bytes += x.nbytes
                self.elements = max(self.elements, x.numel())
        return out


def cached_bytes(device: torch.device) -> int:
    """Return what torch's allocator holds in reserve."""
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, with what torch's allocator holds in reserve."""
    return torch.cuda.mem_get_info(device)[0] + cached_bytes(device)


def free_host_bytes() -> int:
    """Return the memory that this process may take: what the machine has, or less where a job has a limit."""
    left = _left_by_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(0, min([psutil.virtual_memory().available, *left]))


def _left_by_limits(groups: Path, mount: Path) -> Iterator[int]:
    """Yield what the limit of each control group leaves, of version 2 or 1: the group's own, or of one above it."""
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            top, files, total = mount, ("memory.max", "memory.current"), ""
        elif "memory" in controllers.split(","):
            top, files, total = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"
        else:
            continue
        own = top / name.lstrip("/")
        for group in (folder for folder in (own, *own.parents) if folder.is_relative_to(top)):
            with suppress(OSError, ValueError):  # no limit is "max", and a container does not see all folders
                limit, used = (int((group / file).read_text()) for file in files)
                facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                # The kernel gives up cached files before a limit is reached.
                yield limit - used + sum(int(facts.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))


def drop_cached(device: torch.device) -> None:
    """Give back what torch's allocator holds in reserve, if it is much: that takes milliseconds."""
    if cached_bytes(device) > MOST_CACHED:
        torch.cuda.empty_cache()


def stream_of(device: torch.device, use: Literal["steps", "timing"]) -> torch.cuda.Stream:
    """Return the only stream for a use."""
    return _stream(torch.cuda.current_device() if device.index is None else device.index, use)


@cache
def _stream(device: int, use: str) -> torch.cuda.Stream:
    """cuBLAS's workspaces, which PyTorch never frees, are taken first, and so not from a segment of gigabytes."""
    stream = torch.cuda.Stream(device)
    plain = torch.autocast("cuda", enabled=False)
    with torch.cuda.stream(stream), torch.enable_grad(), plain:
        x = torch.zeros(16, 16, device=f"cuda:{device}", requires_grad=True)
        (x @ x + torch.addmm(x[0], x, x)).sum().backward()  # cuBLAS and cuBLASLt, here and in autograd's thread
    return stream
