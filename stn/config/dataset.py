"""What is trained on: the fields of a configuration, and what is known of a data set before it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from stn.config import registry
from stn.config.fields import Fraction, OneLine, Positive, Section, name_of, short


class Data(Section):
    """What is trained on, and how it is augmented."""

    name: Annotated[str, name_of("dataset"), short("dataset")] = "mnist"
    """Data set."""
    root: Annotated[OneLine | None, short("data-root")] = None
    """Folder with data sets other than MNIST, which ships with the code. None: $STN_DATA, else ./data."""
    batch_size: Annotated[Positive, Field(le=100_000), short("batch-size")] = 128
    """Images per step over all processes together."""
    limit_train: Annotated[Positive | None, short("limit-train")] = None
    """Train on the first N images only."""
    limit_test: Annotated[Positive | None, short("limit-test")] = None
    """Test on the first N test images only."""
    validation: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Hold out the last N training images and evaluate on these; the test set is not touched."""
    perturb_train: bool = True
    """Perturb the training images as well; off: only the test set is perturbed."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Augmentation: rotation of up to this many degrees, either way."""
    translate: Fraction = 0.0
    """Augmentation: shift of up to this fraction of the side, on each axis."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Augmentation: range of the enlargement."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Augmentation: shear of up to this many degrees, either way."""
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Augmentation: how an affine one resamples."""
    crop: Annotated[int, Field(ge=0, le=1024)] = 0
    """Augmentation: random crop after padding each side by this many pixels."""
    flip: bool = False
    """Augmentation: mirror half of the images left to right."""

    @property
    def split(self) -> Literal["val", "test"]:
        """The images that a run is evaluated on, as the prefix of its metrics (val_acc, test_acc)."""
        return "val" if self.validation else "test"


Perturb = Callable[[Any, Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is loaded."""

    load: Callable[[str | None], Any]
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
    return registry.find("dataset", name).function()
