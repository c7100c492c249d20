"""The data sets by name. Adding one: a function here, and its source and perturbation beside it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from stn.data import perturb
from stn.data.sources import Load, cifar10, mnist
from stn.registry import register
from stn.rng import Draws

Perturb = Callable[[Tensor, Draws, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is loaded."""

    load: Load
    shape: tuple[int, int, int]
    """Of one image after the perturbation."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    net: str
    """The network that an architecture takes unless told otherwise."""
    train: int = 60_000
    test: int = 10_000
    replicas: int = 1
    """Fixed perturbations of each test image."""
    classes: int = 10
    perturb: Perturb | None = None
    pose: tuple[str, ...] = ()
    """Names of the numbers that say which perturbation was applied."""


def _mnist(side: int, mean: float, std: float, net: str, **rest) -> Dataset:
    return Dataset(mnist, (1, side, side), (mean,), (std,), net, **rest)


@register("dataset", name="mnist")
def plain_mnist() -> Dataset:
    """MNIST as it is, 28x28."""
    return _mnist(28, 0.1307, 0.3081, "finnveden_r")


@register("dataset")
def mnist_r() -> Dataset:
    """MNIST rotated by up to 90 degrees either way, 28x28; 10 fixed rotations of each test image."""
    return _mnist(28, 0.1307, 0.3081, "finnveden_r", replicas=10, perturb=perturb.rotate, pose=("degrees",))


@register("dataset")
def mnist_t() -> Dataset:
    """MNIST digits anywhere on a 60x60 canvas with clutter; 10 fixed variants of each test image."""
    return _mnist(60, 0.0363, 0.1870, "finnveden_t", replicas=10, perturb=perturb.translate, pose=("x", "y"))


@register("dataset")
def mnist_s() -> Dataset:
    """MNIST digits half to four times as large on a 112x112 canvas with clutter; 10 fixed variants."""
    return _mnist(112, 0.0414, 0.1751, "finnveden_s", replicas=10, perturb=perturb.rescale, pose=("log2_area",))


@register("dataset", name="cifar10")
def plain_cifar10() -> Dataset:
    """CIFAR-10, 32x32 colour images."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return Dataset(cifar10, (3, 32, 32), mean, std, "cifar_small", train=50_000)
