"""Triton's kernels, in its interpreter: equal to PyTorch's operations, for the shapes of all networks."""

import os
import subprocess
import sys

import pytest
import torch

from stn.models import kernels
from tests.support.paths import ROOT

pytest.importorskip("triton", reason="PyTorch has no Triton here")


def interpreted(program: str) -> None:
    """Run a program in a process of its own: Triton decides at import whether it interprets."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_convolutions_are_pytorchs() -> None:
    """Large maps in larger tiles than on a device: the interpreter takes as long for a small tile."""
    interpreted("""
from contextlib import nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F
from stn.models.kernels import convolution
from stn.multiseed.ways import has_kernel, pair
from tests.models.test_convolution import run, shapes

larger = {"_forward_tile": lambda N: (2048, 128, 4, 1), "_filters_tile": lambda taps: (1024, 256, 4, 1), "_CHUNKS": 4}
tried = 0
for shape in shapes():
    (x, weight), (stride, padding, dilation), groups = shape[:2], map(pair, shape[3:6]), shape[6]
    tried += has_kernel((torch.empty(x), torch.empty(weight), None, stride, padding, dilation), groups)
    with patch.multiple(convolution, **larger) if x[-1] > 13 else nullcontext():
        found = run("triton", shape)
    for a, b in zip(found, run("grouped", shape), strict=True):
        assert float((a - b).abs().max()) <= 1e-12 * max(1.0, float(b.abs().max())), shape
assert tried > 12, tried
from stn.multiseed.convolution import Convolutions
x = torch.randn(7, 6, 12, 9, requires_grad=True)  # several tiles, float32
weight = torch.randn(40, 3, 3, 5, requires_grad=True)
outs = [Convolutions(way)(x, weight, None, 1, (1, 2), 1, 2) for way in ("triton", "grouped")]
for a, b in zip(*(torch.autograd.grad(out.square().sum(), [x, weight]) for out in outs)):
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)
""")


def test_pools_are_pytorchs_to_the_bit() -> None:
    interpreted("""
import torch
import torch.nn.functional as F
from stn.models.kernels.pooling import max_pool

for k, H, W in ((2, 20, 20), (2, 7, 9), (3, 10, 11), (4, 8, 8)):
    x = torch.randint(0, 4, (5, 7, H, W)).float()  # equal pixels: the first one wins
    x[0, 0, 0, 1] = float("nan")
    x.requires_grad_()
    ours, theirs = max_pool(x, k), F.max_pool2d(x, k)
    assert torch.equal(ours.nan_to_num(9), theirs.nan_to_num(9))
    grad = torch.randn_like(ours)
    first = [torch.autograd.grad(out, x, grad.requires_grad_(), create_graph=True)[0] for out in (ours, theirs)]
    assert torch.equal(*first)
    again = torch.randn_like(x)
    assert torch.equal(*(torch.autograd.grad(out, grad, again)[0] for out in first))
""")


def test_samples_are_ours_to_the_bit() -> None:
    interpreted("""
import torch
from stn.data.geometry import resample
from stn.models.kernels.resampling import resample as in_one_launch

for channels, side, out in ((1, 28, 28), (1, 28, 42), (3, 32, 32), (2, 5, 9)):
    image = torch.randint(0, 256, (6, channels, side, side), dtype=torch.uint8)
    x, y = ((torch.rand(6, out, out) - 0.5) * 2 * side for _ in range(2))
    x[0], x[1], y[2] = x[0].round(), 1e9, -1e9
    assert torch.equal(resample(image, x.clone(), y.clone()), in_one_launch(image, x, y))
x, y = (torch.rand(6, 1, 42) - 0.5) * 50, (torch.rand(6, 42, 1) - 0.5) * 50
image = torch.randint(0, 256, (12, 1, 28, 28), dtype=torch.uint8)[::2]
assert torch.equal(resample(image, x.clone(), y.clone()), in_one_launch(image, x, y))
""")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_without_cuda_the_reason_is_said() -> None:
    assert kernels.missing() == "there is no CUDA device"
