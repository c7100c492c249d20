"""What is known of a data set before it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stn.config import registry

Load = Callable[[str | None], Any]
Perturb = Callable[[Any, Any, Any], tuple[Any, Any]]


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
    side: int = 28
    """Of an image before the perturbation."""
    test_mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and SD that normalise test images, where they are not the training images'."""
    perturb: Perturb | None = None
    pose: tuple[str, ...] = ()
    """Names of the numbers that say which perturbation was applied."""


def build_dataset(name: str) -> Dataset:
    return registry.find("dataset", name)()
