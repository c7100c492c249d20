"""Data sets without code: --dataset npz:FILE and --dataset folder:DIR.

Both become arrays: uint8 images [N, C, H, W] and labels. A folder's images are decoded once and kept in the user's
cache. Read ``dataset_facts`` first. Never imports torch before images are loaded.
"""

import hashlib
import json
import os
from collections import namedtuple
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from stn.config.dataset import Dataset
from stn.config.registry import register
from stn.data import image_folder
from stn.runs.files import read_json, write_atomic

KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
"""Names of the four arrays of a file: as Keras, as scikit-learn's users, as MedMNIST."""
MOST_CLASSES = 5_000
"""Of more, a confusion matrix does not fit into the header of a checkpoint."""
_USUAL_NETS = {1: ((44, "finnveden_r"), (86, "finnveden_t"), (2**30, "finnveden_s")), 3: ((2**30, "cifar_small"),)}
"""By channels: the network of images up to this side."""


Arrays = namedtuple("Arrays", ("train_x", "train_y", "test_x", "test_y"))
"""NumPy arrays: uint8 images [N, C, H, W], int64 labels [N]."""


@register("reader")
def npz(path: str) -> Dataset:
    """NumPy file with arrays x_train, y_train, x_test and y_test: --dataset npz:FILE."""
    return _dataset("npz", path, _stamp([Path(path)], "npz"))


@register("reader")
def folder(path: str) -> Dataset:
    """Images of one size in train/CLASS/ and test/CLASS/ (ImageFolder's layout): --dataset folder:DIR."""
    files = image_folder.files(Path(path), "train") + image_folder.files(Path(path), "test")
    return _dataset("folder", path, _stamp(files, image_folder.DECODER))


def _dataset(kind: str, path: str, stamp: str) -> Dataset:
    facts = dataset_facts(kind, path, stamp)
    shape, mean, std = tuple(facts["shape"]), tuple(facts["mean"]), tuple(facts["std"])
    net = next(net for side, net in _USUAL_NETS[shape[0]] if shape[1] <= side)
    counts = {key: facts[key] for key in ("train", "test", "classes", "content")}
    return Dataset(partial(load, kind, path, stamp, facts["content"]), shape, mean, std, net, side=shape[1], **counts)


def _stamp(files: list[Path], decoder: str) -> str:
    """Return a hash of names, sizes, times and how they are decoded, without reading the files."""
    try:
        facts = [(str(file.absolute()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}") from None
    return hashlib.sha256(json.dumps([decoder, facts]).encode()).hexdigest()[:24]


def _cache(stamp: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "stn", stamp)


def dataset_facts(kind: str, path: str, stamp: str) -> dict[str, Any]:
    """Return what is known of a data set: shape, counts, mean and SD of the training images, hash of all of it."""
    file = _cache(stamp).with_suffix(".json")
    known: dict[str, Any] = {}
    with suppress(OSError):
        known = read_json(file)
    if known.get("stamp") == stamp:
        return known
    arrays, content = _arrays(kind, path, stamp)
    import numpy as np

    counts = [np.bincount(channel.ravel(), minlength=256) for channel in arrays.train_x.swapaxes(0, 1)]
    values = np.arange(256) / 255
    means = [float(count @ values / count.sum()) for count in counts]
    stds = [float((count @ (values - m) ** 2 / count.sum()) ** 0.5) for count, m in zip(counts, means, strict=True)]
    if 0 in stds:
        raise ValueError(f"{path}: the training images have one value everywhere in a channel")
    facts = {
        "stamp": stamp,
        "content": content,
        "shape": list(arrays.train_x.shape[1:]),
        "train": len(arrays.train_x),
        "test": len(arrays.test_x),
        "classes": int(arrays.train_y.max()) + 1,
        "mean": [round(mean, 6) for mean in means],
        "std": [round(std, 6) for std in stds],
    }
    _write_cache(file, json.dumps(facts).encode())
    return facts


def _content(arrays: Arrays) -> str:
    """Return the hash of images and labels."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(memoryview(array).cast("B"))
    return digest.hexdigest()[:16]


def _write_cache(file: Path, content: bytes) -> None:
    with suppress(OSError):  # no room, or no home: it is read again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content)


def load(kind: str, path: str, stamp: str, content: str, root: str | None = None) -> tuple[Any, ...]:
    """Return the four tensors; ``root`` is not needed."""
    import torch

    arrays, found = _arrays(kind, path, stamp)
    if found != content:
        _cache(stamp).with_suffix(".json").unlink(missing_ok=True)  # of other files with these names, sizes and times
        raise ValueError(f"{path} has changed since it was first read; start this again")
    return tuple(map(torch.from_numpy, arrays))


@lru_cache(maxsize=1)
def _arrays(kind: str, path: str, stamp: str) -> tuple[Arrays, str]:
    """Return images and labels, and their hash."""
    arrays = _checked(path, _read_npz(Path(path)) if kind == "npz" else _read_folder(Path(path), stamp))
    classes = int(arrays.train_y.max()) + 1
    if not 2 <= classes <= MOST_CLASSES or min(arrays.train_y.min(), arrays.test_y.min()) < 0:
        raise ValueError(f"{path}: labels must be 0 to K - 1 for K classes, 2 to {MOST_CLASSES:,} of them")
    if (most := arrays.test_y.max()) >= classes:
        raise ValueError(f"{path}: the test labels go up to {most}, the training labels to {classes - 1}")
    return arrays, _content(arrays)


def _read_folder(path: Path, stamp: str) -> dict[str, Any]:
    """Return a folder's decoded images, from the cache if an earlier start has filled it."""
    kept = _cache(stamp).with_suffix(".npz")
    with suppress(ValueError):
        return _read_npz(kept)
    arrays = image_folder.read(path)
    _write_cache(kept, image_folder.packed(arrays))
    return arrays


def _read_npz(path: Path) -> dict[str, Any]:
    """Return the arrays of a file by our names; nothing in it is run."""
    import zipfile
    import zlib

    import numpy as np

    damaged = OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error  # as zipfile raises them
    try:
        if path.exists() and not (path.is_file() and zipfile.is_zipfile(path)):
            raise ValueError("it is no .npz file, as numpy.savez writes it")
        with np.load(path, allow_pickle=False) as file:
            keys = next((keys for keys in KEYS if set(keys) <= set(file.files)), None)
            if keys is None:
                wanted = " or ".join(", ".join(keys) for keys in KEYS)
                raise ValueError(f"it has {', '.join(sorted(file.files)[:8]) or 'nothing'}; it needs {wanted}")
            return dict(zip(KEYS[0], (file[key] for key in keys), strict=True))
    except damaged as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _checked(path: str, arrays: dict[str, Any]) -> Arrays:
    """Return the arrays in the layout that training takes; ValueError for a wrong type or shape."""
    import numpy as np

    out = {}
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.ndim not in (3, 4):
            raise ValueError(
                f"{path}: x_{part} is {x.dtype} {[*x.shape]}; images must be uint8, [N, H, W], [N, H, W, C] or "
                "[N, C, H, W]. Of values from 0 to 1: (255 * x).round().astype('uint8')"
            )
        if x.ndim == 3:
            x = x[:, None]
        elif x.shape[3] in (1, 3):
            x = np.moveaxis(x, 3, 1)
        if x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
            raise ValueError(
                f"{path}: images of {[*x.shape[1:]]} in x_{part}; square ones of 1 or 3 channels are needed"
            )
        if not np.issubdtype(y.dtype, np.integer) or y.size != len(x) or not len(x):
            raise ValueError(
                f"{path}: y_{part} is {y.dtype} {[*y.shape]}; each of {len(x)} images needs a whole number"
            )
        out[f"{part}_x"], out[f"{part}_y"] = np.ascontiguousarray(x), y.reshape(-1).astype(np.int64)
    train, test = (out[f"{part}_x"].shape[1:] for part in ("train", "test"))
    if train != test:
        raise ValueError(f"{path}: training images are {[*train]}, test images {[*test]}")
    return Arrays(**out)
