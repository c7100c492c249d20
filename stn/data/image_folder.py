"""Images of one size in train/CLASS/ and test/CLASS/, as torchvision's ImageFolder and timm lay them out."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DECODER = "folder 2"
"""Another one where the same files become other arrays, so that none are taken from the cache."""
DEEP = ("I", "F")
"""How modes of Pillow begin that have more than 8 bits a pixel, which it would cut off at 255."""
TEST_NAMES = ("test", "val", "valid", "validation")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def _part(path: Path, part: str) -> Path:
    names = ("train",) if part == "train" else TEST_NAMES
    found = [path / name for name in names if (path / name).is_dir()]
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    if not found:
        raise ValueError(f"{path} has no folder {' or '.join(names[:2])} with a folder for each class in it")
    return found[0]


def _below(folder: str, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files in and below a folder, without hidden ones and links to a folder above."""
    if (real := os.path.realpath(folder)) in above:
        return
    for entry in os.scandir(folder):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _below(entry.path, (*above, real))
        elif not entry.name.startswith("."):
            yield Path(entry.path)


def files(path: Path, part: str) -> list[Path]:
    """Return the images of a part in an order that mixes the classes: limits and validation take the first or last."""
    folder = _part(path, part)
    found = [file for file in _below(str(folder)) if file.suffix.lower() in ENDINGS and file.parent != folder]
    if not found:
        raise ValueError(f"{folder} has no images: it needs CLASS/NAME with one of {', '.join(ENDINGS)}")
    return sorted(found, key=lambda file: hashlib.sha256(file.relative_to(folder).as_posix().encode()).digest())


def read(path: Path) -> dict[str, Any]:
    """Return the decoded images and labels of both parts; one channel if all images are grey, else three."""
    import numpy as np
    from PIL import Image

    images: dict[Path, Any] = {}
    arrays: dict[str, Any] = {}
    parts = {part: files(path, part) for part in ("train", "test")}
    folders = {part: _part(path, part) for part in parts}
    classes_of = {part: [file.relative_to(folders[part]).parts[0] for file in parts[part]] for part in parts}
    classes = sorted(set(classes_of["train"]))
    for file in (file for part in parts.values() for file in part):
        try:
            with Image.open(file) as image:
                if image.mode.startswith(DEEP):
                    raise ValueError(f"it has more than 8 bits a pixel ({image.mode}); scale it to 0 to 255 first")
                images[file] = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of these
            raise ValueError(f"cannot read the image {file}: {error}") from None
    sizes = Counter(image.shape[:2] for image in images.values())
    if len(sizes) > 1:
        (usual, _), (other, _) = sizes.most_common(2)
        file = next(file for file, image in images.items() if image.shape[:2] == other)
        raise ValueError(
            f"{path}: images must have one size; most are {usual[1]}x{usual[0]}, {file} is {other[1]}x{other[0]}. "
            "Resize them first"
        )
    grey = all(image.ndim == 2 for image in images.values())
    for part, found in parts.items():
        if unknown := set(classes_of[part]) - set(classes):
            raise ValueError(f"{folders[part]}: class {min(unknown)!r:.80} has no training images")
        rows = [images[file] if grey or images[file].ndim == 3 else np.stack([images[file]] * 3, -1) for file in found]
        arrays[f"x_{part}"] = np.stack(rows)
        arrays[f"y_{part}"] = np.array([classes.index(name) for name in classes_of[part]])
    return arrays


def packed(arrays: dict[str, Any]) -> bytes:
    """Return arrays as the content of an .npz file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
