"""The C kernels for CPUs: PyTorch's results, whatever the number of threads."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.geometry import resample
from stn.models.build import build_network
from stn.models.kernels import compiled, cpu_columns, cpu_convolution, cpu_pooled, cpu_pooling, cpu_sampling
from stn.multiseed.model import StackedModel
from tests.support.orders import maps

pytestmark = pytest.mark.skipif(compiled.library()[0] is None, reason=compiled.library()[1] or "never")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "library", lambda: compiled.Library(None, "the test"))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("H", "W", "D"), [(20, 20, 64), (7, 9, 8), (2, 3, 40), (11, 22, 24)])
def test_pools_are_pytorchs_to_the_bit(H: int, W: int, D: int) -> None:
    x = torch.randint(0, 4, (5, D, H, W)).float().contiguous(memory_format=torch.channels_last)  # equal pixels
    x[0, 0, 0, 1], x[1, 2, 1, 1], x[2] = float("nan"), float("-inf"), float("-inf")
    x.requires_grad_()
    assert cpu_pooling.has_kernel(x, 2)
    ours, theirs = cpu_pooling.max_pool(x), F.max_pool2d(x, 2)
    assert torch.equal(ours.nan_to_num(9), theirs.nan_to_num(9))
    assert ours.stride() == theirs.stride()
    grad = torch.randn_like(ours).contiguous().requires_grad_()  # in another order of memory
    first = [torch.autograd.grad(out, x, grad, create_graph=True)[0] for out in (ours, theirs)]
    assert torch.equal(*first)
    again = torch.randn_like(x)
    assert torch.equal(*(torch.autograd.grad(out, grad, again)[0] for out in first))


def test_a_pool_without_a_kernel_is_pytorchs() -> None:
    last = {"memory_format": torch.channels_last}
    x = torch.randn(2, 8, 6, 6).contiguous(**last)
    assert cpu_pooling.has_kernel(x, 2)
    for other in (x.contiguous(), x.double(), x.bfloat16(), x[:, :4].contiguous(**last), x[:0], x[:, :, :1], x[0]):
        assert not cpu_pooling.has_kernel(other, 2)
    assert not cpu_pooling.has_kernel(x, 3)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shape", [(4, 3, 16, 10, 10, 10, 10), (2, 2, 8, 7, 9, 5, 6), (1, 2, 24, 1, 5, 4, 4)])
def test_samples_are_those_of_grid_sample(shape: tuple[int, ...], padding: str, align_corners: bool) -> None:
    torch.manual_seed(0)
    S, B, C, H, W, h, w = shape
    x, grid = maps(S, B, C, H, W), torch.rand(S, B, h, w, 2) * 2.6 - 1.3
    grid[0, 0, 0, 0], grid[0, 0, 1], grid[0, 0, 2] = -1, 1, torch.tensor([1e9, 0.5])  # corners, and far outside
    grid[0, 0, 3, 0], grid[0, 1, 0, 0] = torch.tensor([0.5, -1e30]), 0
    assert cpu_sampling.has_kernel(x, grid)
    x64, grid64 = x.double().requires_grad_(), grid.double().requires_grad_()
    out = cpu_sampling.sample(x.requires_grad_(), grid.requires_grad_(), padding == "border", align_corners)
    right = F.grid_sample(x64.flatten(0, 1), grid64.flatten(0, 1), "bilinear", padding, align_corners)
    right = right.unflatten(0, (S, B))
    assert (out - right).abs().max() < 1e-5
    assert out.stride() == maps(S, B, C, h, w).stride()
    grad = torch.randn_like(right)
    gradients = torch.autograd.grad(out, [x, grid], grad.float())
    for ours, theirs in zip(gradients, torch.autograd.grad(right, [x64, grid64], grad), strict=True):
        assert (ours - theirs).abs().max() <= 2e-6 * theirs.abs().max()


def test_points_that_are_no_numbers_give_none_and_read_nothing_outside() -> None:
    x, grid = maps(1, 2, 8, 5, 5), torch.zeros(1, 2, 3, 3, 2)
    grid[0, 0, ..., 0], grid[0, 1], grid[0, 1, 0, :, 1] = float("nan"), float("inf"), float("-inf")
    right = F.grid_sample(x[0], grid[0], "bilinear", "zeros", True)
    assert right.isnan().all()
    assert cpu_sampling.sample(x, grid.requires_grad_(), False, True).isnan().all()
    (slope,) = torch.autograd.grad(cpu_sampling.sample(x, grid, False, True).sum(), grid)
    assert slope.isnan().all()
    assert cpu_sampling.sample(x, grid, True, True).isfinite().all()


def test_samples_without_a_kernel_are_pytorchs() -> None:
    x, grid = maps(2, 3, 8, 5, 5), torch.zeros(2, 3, 4, 4, 2)
    assert cpu_sampling.has_kernel(x, grid)
    others = [
        (x.contiguous(), grid),
        (x, grid[:1]),
        (x, grid[:, :2]),
        (x, grid[..., :1]),
        (x, grid.double()),
        (x, grid[0]),
    ]
    for images, points in (*others, (x.double(), grid), (x, grid[:, :, :0]), (maps(2, 3, 4, 5, 5), grid)):
        assert not cpu_sampling.has_kernel(images, points)


@pytest.mark.usefixtures("threads")
def test_perturbed_images_have_the_same_bits_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = []
    for channels, side, out in ((1, 28, 28), (1, 28, 42), (3, 32, 32), (2, 5, 9)):
        image = torch.randint(0, 256, (6, channels, side, side), dtype=torch.uint8)
        x, y = ((torch.rand(6, out, out) - 0.5) * 2 * side for _ in range(2))
        x[0], x[1], y[2] = x[0].round(), 1e9, -1e9
        cases += [(image, x, y), (image, x[:, :1], y[:, :, :1])]
    ours = [resample(image, x.clone(), y.clone()) for image, x, y in cases]
    without(monkeypatch)
    for got, (image, x, y) in zip(ours, cases, strict=True):
        assert torch.equal(got, resample(image, x.clone(), y.clone()))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("D", "l", "w", "pad"), [(4, 9, 20, 0), (1, 5, 24, 0), (3, 5, 12, 2), (2, 3, 1, 1), (2, 7, 3, 4)]
)
def test_columns_are_added_in_their_order(D: int, l: int, w: int, pad: int) -> None:
    x, W = torch.randn(3, D * l, 5, w).contiguous(memory_format=torch.channels_last), w + l - 1 - 2 * pad
    if W <= 0:
        W = 1
    padded = torch.zeros(3, D, 5, max(W + 2 * pad, w + l - 1))
    for j in range(l):
        padded[..., j : j + w] += x.unflatten(1, (D, l))[:, :, j]
    assert cpu_columns.has_kernel(x)
    assert torch.equal(cpu_columns.add_columns(x, l, W, pad), padded[..., pad : pad + W])


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func).removesuffix(".default"))
        return func(*args, **(kwargs or {}))


def gradients(arch: str, S: int) -> tuple[list[Tensor], set[str]]:
    """Return the gradients of some seeds' parameters, and the names of the operations that made them."""
    config = resolve(Config(arch=Arch(name=arch), data=Data(name="mnist_r")))
    model = StackedModel(lambda: build_network(config), list(range(S)))
    images = torch.randn(S, 5, *build_dataset("mnist_r").shape, generator=torch.Generator().manual_seed(0))
    with Operations() as seen:
        model(images, 0, torch.arange(5)).logsumexp(-1).sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None], seen.names


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("arch", "convolves", "rounding"),
    [
        ("cnn", True, 1e-5),
        ("stn_slx", True, 1e-5),
        ("stn_cx", True, 1e-5),
        ("cnn", False, 0.0),
        ("stn_slx", False, 0.0),
    ],
)
def test_networks_take_the_kernels_and_learn_the_same(
    arch: str, convolves: bool, rounding: float, seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not convolves:
        for module in (cpu_convolution, cpu_pooled):
            monkeypatch.setattr(module, "has_kernel", lambda *given: False)
    ours, operations = gradients(arch, seeds)
    lanes = cpu_convolution.lanes() if convolves else 0
    assert ("stn.pooled_to_filters" in operations) == (lanes > 0)
    assert ("stn.pooled_to_image" in operations) == (lanes > 0)
    assert ("stn.max_pool_last_gradient" in operations) == (arch == "stn_slx" or not lanes)
    assert ("stn.thin_to_image" in operations) == (arch == "stn_slx" and lanes == 8)
    assert ("stn.add_columns" in operations) == (arch == "stn_slx" and lanes != 8)
    assert ("stn.sample_last_gradients" in operations) == (arch == "stn_cx")
    without(monkeypatch)
    theirs, operations = gradients(arch, seeds)
    assert not any(name.startswith("stn.") for name in operations)
    assert len(ours) == len(theirs) > 4
    for got, right in zip(ours, theirs, strict=True):
        assert (got - right).abs().max() <= rounding * right.abs().max()
