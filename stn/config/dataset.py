"""What is trained on: the fields of a configuration, and what is known of a data set before it is loaded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stn.config import registry
from stn.config.fields import Fraction, OneLine, Positive, Section, short

_MANY = 20
"""Images a class, of which chance leaves no class out."""


def _name(name: str) -> str:
    """Return the registered spelling of a name; of a file, as in npz:FILE, with its absolute path."""
    name = registry.canonical("dataset", name)
    kind, colon, path = name.partition(":")
    if colon and not path:
        raise ValueError(f"needs a path behind the ':', such as {kind}:data/mine")
    try:
        return f"{kind}:{Path(path).expanduser().absolute()}" if colon else name
    except RuntimeError as error:  # no such user, or no home
        raise ValueError(f"{path}: {error}") from None


class Data(Section):
    """What is trained on, and how it is augmented."""

    name: Annotated[str, AfterValidator(_name), short("dataset")] = "mnist"
    """Data set; or npz:FILE, or folder:DIR, for images of your own."""
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
    """Augmentation: how rotation, shift, scale and shear resample."""
    crop: Annotated[int, Field(ge=0, le=1024)] = 0
    """Augmentation: random crop after padding each side by this many pixels."""
    flip: bool = False
    """Augmentation: mirror half of the images left to right."""
    alternate_flip: bool = False
    """With data.flip: mirror each image in every other epoch, instead of at random."""
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    """Augmentation: paint a square of this side, at a random position, in the mean colour."""

    @property
    def label(self) -> str:
        """The short name in tables and folder names: of a file or folder its name without the path."""
        kind, colon, path = self.name.partition(":")
        return re.sub(r"\W", "_", Path(path).stem)[:100] or kind if colon else self.name

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
    """[C, H, W] of an image after the perturbation."""
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
    """Height and width of an image before the perturbation."""
    test_mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and SD that normalise test images, where they are not the training images'."""
    perturb: Perturb | None = None
    pose: tuple[str, ...] = ()
    """Names of the parameters of the applied perturbation."""
    content: str | None = None
    """Hash of images and labels; None for a data set whose name identifies them."""

    def images(self, root: str | None) -> Any:
        """Load images and labels; ValueError if they are not what was said of them, which training relies on."""
        loaded = self.load(root)
        counts, said = [len(part) for part in loaded], [self.train, self.train, self.test, self.test]
        if counts != said:
            raise ValueError(
                f"the data set has {counts[0]:,} training images ({counts[1]:,} labels) and {counts[2]:,} test images "
                f"({counts[3]:,} labels); its Dataset says train={self.train:,}, test={self.test:,}"
            )
        shape = (self.shape[0], self.side, self.side) if self.perturb else self.shape
        for part in loaded[::2]:
            if str(part.dtype) != "torch.uint8" or part.shape[1:] != shape:
                found = f"{str(part.dtype).removeprefix('torch.')} {list(part.shape[1:])}"
                raise ValueError(f"images are {found}; its Dataset says uint8 {list(shape)}")
        for label in (int(bound) for labels in loaded[1::2] for bound in (labels.min(), labels.max())):
            if not 0 <= label < self.classes:
                raise ValueError(f"the data set has a label {label}; its Dataset says classes={self.classes}")
        return loaded


def find_dataset(name: str) -> registry.Entry:
    """Return the registry entry of a data set, or of the reader of its file (npz:FILE)."""
    kind, colon, _ = name.partition(":")
    return registry.find("reader", kind) if colon else registry.find("dataset", name)


def build_dataset(name: str) -> Dataset:
    return _of_file(name) if ":" in name else find_dataset(name).function()


def forget_files() -> None:
    """Let files be read again, in a process that outlives them: of a notebook."""
    _of_file.cache_clear()


@cache
def _of_file(name: str) -> Dataset:
    """Read what is in a file once: all that a process trains and writes is of one content, also if the file changes."""
    dataset: Dataset = find_dataset(name).function(name.partition(":")[2])
    if not dataset.content:
        raise ValueError(f"the reader of '{name}' gives no `content`, by which a signature knows one file from another")
    return dataset


def classes_left_out(data: Data) -> list[int]:
    """Return the classes of which data.validation or data.limit_train leave no training image, if they leave many."""
    dataset = build_dataset(data.name)
    y_N = dataset.images(data.root)[1]
    kept = min(data.limit_train or len(y_N), len(y_N) - data.validation)
    classes = range(dataset.classes) if kept > _MANY * dataset.classes else ()
    return sorted(set(classes) - set(y_N[:kept].tolist()))
