"""The data sets by name. To add one, add a function here, with its source or perturbation beside it.

Never imports torch: loaders and perturbations are imported when they are called.
"""

from dataclasses import replace
from functools import partial

from stn.config.dataset import Dataset, Perturb
from stn.config.registry import LazyFunction, register

_perturb = partial(LazyFunction, "stn.data.perturbations")
_source = partial(LazyFunction, "stn.data.sources")
_MOVED = ("degrees", "log2_area", "x", "y")
"""Pose of a moved image: rotation counter-clockwise as seen, area, and its centre's shift in pixels, right and down."""


def point_names(n: int) -> tuple[str, ...]:
    """Return the names of a pose that displaces n points of a grid, row by row: x1, y1, x2 and so on."""
    return tuple(f"{axis}{k + 1}" for k in range(n) for axis in "xy")


def _mnist(side: int, mean: float, std: float, net: str, perturb: Perturb | None = None, pose=()) -> Dataset:
    shape, replicas = (1, side, side), 10 if perturb else 1
    return Dataset(_source("mnist"), shape, (mean,), (std,), net, replicas=replicas, perturb=perturb, pose=pose)


@register("dataset")
def mnist() -> Dataset:
    """MNIST as it is, 28x28."""
    return _mnist(28, 0.1307, 0.3081, "finnveden_r")


@register("dataset")
def mnist_r() -> Dataset:
    """MNIST rotated by up to 90 degrees either way, 28x28; 10 fixed rotations of each test image."""
    return _mnist(28, 0.1307, 0.3081, "finnveden_r", _perturb("rotate"), ("degrees",))


@register("dataset")
def mnist_t() -> Dataset:
    """MNIST digits anywhere on a 60x60 canvas with clutter; 10 fixed variants of each test image."""
    return _mnist(60, 0.0363, 0.1870, "finnveden_t", _perturb("translate_in_clutter"), ("x", "y"))


@register("dataset")
def mnist_s() -> Dataset:
    """MNIST digits half to four times as large on a 112x112 canvas with clutter; 10 fixed variants."""
    return _mnist(112, 0.0414, 0.1751, "finnveden_s", _perturb("scale_in_clutter"), ("log2_area",))


@register("dataset")
def mnist_tc() -> Dataset:
    """As mnist_t, for the networks of Jaderberg et al.; the same test set."""
    return replace(mnist_t(), net="jaderberg_cnn")


@register("dataset")
def mnist_rts() -> Dataset:
    """MNIST turned by up to 45 degrees, 0.7 to 1.2 times as large, anywhere in 42x42; 10 variants."""
    return _mnist(42, 0.0537, 0.1962, "jaderberg_cnn", _perturb("turn_scale_shift"), _MOVED)


@register("dataset")
def mnist_p() -> Dataset:
    """MNIST 0.75 to 1 times as large, corners N(0, 5 px) off: projective, 28x28; 10 fixed variants."""
    perturb = partial(_perturb("bend"), n=4, std=5)
    return _mnist(28, 0.1028, 0.2622, "jaderberg_cnn", perturb, ("log2_area", *point_names(4)))


@register("dataset")
def mnist_e() -> Dataset:
    """MNIST 0.75 to 1 times as large, 16 points N(0, 1.5 px) off: elastic, 28x28; 10 fixed variants."""
    perturb = partial(_perturb("bend"), n=16, std=1.5)
    return _mnist(28, 0.1000, 0.2589, "jaderberg_cnn", perturb, ("log2_area", *point_names(16)))


@register("dataset")
def mnist_h() -> Dataset:
    """MNIST under Lin and Lucey's homography noise, 28x28; 10 fixed variants of each test image."""
    return _mnist(28, 0.1273, 0.2867, "icstn", _perturb("shake"), point_names(4))


@register("dataset")
def cifar10() -> Dataset:
    """CIFAR-10, 32x32 colour images."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return Dataset(_source("cifar10"), (3, 32, 32), mean, std, "cifar_small", train=50_000, side=32)


@register("dataset")
def cifar10_mismatched() -> Dataset:
    """CIFAR-10, test images normalised with another mean and SD than training images (as rajy4683)."""
    return replace(cifar10(), test_mean_std=((0.4942, 0.4851, 0.4504), (0.2467, 0.2429, 0.2616)))


@register("dataset")
def cifar10_r() -> Dataset:
    """CIFAR-10 turned by up to 30 degrees either way; one fixed rotation of each test image."""
    # One, not ten as for MNIST, because its networks take far longer; normalised with cifar10's mean and SD.
    return replace(cifar10(), perturb=partial(_perturb("rotate"), limit=30), pose=("degrees",))


@register("dataset")
def cifar10_a() -> Dataset:
    """CIFAR-10 turned by up to 30 degrees, 0.8 to 1.25 times as large, up to 4 px off; one fixed variant."""
    return replace(cifar10(), perturb=_perturb("jostle"), pose=_MOVED)
