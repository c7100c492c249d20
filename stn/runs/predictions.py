"""The answers of a run's networks to every test image: the files in predictions/.

    predictions/
        seed-<n>.safetensors    predicted [N], a class; margin [N], probability of the true class less the largest other
        images.safetensors      label [N]; the applied pose [N, P]; number [M] and pixels [M, C, H, W] of the hardest

A result row names its seed's file, its size and its SHA-256. N counts test images in the order of the evaluation. Numpy
is imported where it is needed: most readers of run directories need none of it.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stn.runs.records import Row

if TYPE_CHECKING:
    import numpy as np

FOLDER = "predictions"
MOST_CLASSES = 2**20
"""Most classes that are read: a damaged file must not make readers build a huge table."""


class Folder(Protocol):
    """The part of a run directory that this module needs; ``replace`` is as in Results."""

    path: Path

    def replace(self, path: Path, content: bytes | str) -> bool: ...


class Answers(NamedTuple):
    """The answers of one seed's network to N test images."""

    predicted_N: "np.ndarray"
    margin_N: "np.ndarray"


class KnownImages(NamedTuple):
    """What is known of the test images of a run."""

    label_N: "np.ndarray"
    pose_NP: "np.ndarray"
    """The pose that was applied, in float32; no columns without a perturbation."""
    pose: tuple[str, ...]
    """Names of its columns."""
    originals: int
    """Images before the perturbation: n and n + originals are two perturbations of one image."""
    number_M: "np.ndarray"
    """Numbers of the images that are hardest for this run, the hardest first."""
    pixels_MCHW: "np.ndarray"
    """These images, in bytes."""


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hash_of_labels(label_N: "np.ndarray") -> str:
    """Return what identifies a test set in result rows: the hash of its labels in their order."""
    return _hash(label_N.astype("<u4").tobytes())


def as_classes(class_N: "np.ndarray") -> "np.ndarray":
    """Return classes in one byte each, or in four if there are 256 or more."""
    return class_N.astype("u1" if class_N.size == 0 or class_N.max() < 256 else "<u4")


def _read(path: Path) -> bytes:
    """Return the content of a file; ValueError if it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _load(path: Path, content: bytes) -> tuple[dict[str, "np.ndarray"], dict[str, Any]]:
    """Return the tensors and the header of a file that was read; ValueError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        header = dict(json.loads(metadata.get("stn", "{}")))
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!s:.200}") from None
    return tensors, header


def write_answers(run: Folder, seed: int, answers: Answers, label_N: "np.ndarray") -> Row:
    """Write a seed's file, unless the lease is lost; return the field of its result row."""
    from safetensors.numpy import save

    file = f"{FOLDER}/seed-{seed}.safetensors"
    content = save({"predicted": as_classes(answers.predicted_N), "margin": answers.margin_N.astype("<f2")})
    run.replace(run.path / file, content)
    facts = {"file": file, "bytes": len(content), "sha256": _hash(content), "labels_sha256": hash_of_labels(label_N)}
    return {"predictions": facts}


def _answers(path: Path, content: bytes) -> Answers:
    tensors, _ = _load(path, content)
    predicted_N, margin_N = tensors.get("predicted"), tensors.get("margin")
    if predicted_N is None or margin_N is None or predicted_N.ndim != 1 or predicted_N.shape != margin_N.shape:
        raise ValueError(f"{path} is damaged: it does not have one class and one margin for each image")
    if predicted_N.dtype.kind != "u" or margin_N.dtype.kind != "f":
        raise ValueError(f"{path} is damaged: its classes or margins are of another type")
    return Answers(predicted_N, margin_N)


def read_answers(folder: Path, row: Row) -> Answers:
    """Return the answers of a result row's network to the test images; ValueError if their file is not as written."""
    facts = row["predictions"]
    path = folder / facts["file"]
    content = _read(path)
    if _hash(content) != facts["sha256"]:
        raise ValueError(f"{path} is damaged: its contents do not match the hash in its result row")
    return _answers(path, content)


def all_answers(folder: Path, images: int) -> list[Answers]:
    """Return the undamaged answers of a run on so many images, by seed, whether or not they have rows yet."""
    found = []
    for path in sorted((folder / FOLDER).glob("seed-*.safetensors")):
        try:
            answers = _answers(path, _read(path))
        except ValueError:
            continue
        found += [answers] * (len(answers.predicted_N) == images)
    return found


def hardest(right_N: "np.ndarray", margin_N: "np.ndarray") -> "np.ndarray":
    """Return the numbers of images, the hardest first: by the share of right answers, then by the mean margin."""
    import numpy as np

    return np.lexsort((margin_N, right_N))


def faults(folder: Path, rows: dict[int, Row], whole: bool = True) -> list[str]:
    """Return a message for each file that is missing or damaged; without ``whole`` only the sizes of answers count."""
    found = []
    if whole and any(row.get("predictions") for row in rows.values()):
        try:
            read_images(folder)
        except ValueError as error:
            found.append(str(error))
    for row in rows.values():
        if facts := row.get("predictions"):
            path = folder / facts["file"]
            try:
                if whole:
                    read_answers(folder, row)
                elif not path.is_file():
                    found.append(f"{path} is missing")
                elif path.stat().st_size != facts["bytes"]:
                    found.append(f"{path} is damaged: it has {path.stat().st_size:,} bytes, not {facts['bytes']:,}")
            except ValueError as error:
                found.append(str(error))
    return found


def write_images(run: Folder, images: KnownImages) -> bool:
    """Write images.safetensors, unless the lease is lost; return whether that was done."""
    from safetensors.numpy import save

    tensors = {"label": as_classes(images.label_N), "pose": images.pose_NP.astype("<f4")}
    tensors |= {"number": images.number_M.astype("<i8"), "pixels": images.pixels_MCHW}
    header = {"pose": images.pose, "originals": images.originals, "sha256": _hash_of_tensors(tensors)}
    return run.replace(run.path / FOLDER / "images.safetensors", save(tensors, metadata={"stn": json.dumps(header)}))


def _hash_of_tensors(tensors: dict[str, "np.ndarray"]) -> str:
    parts = [f"{name} {x.dtype.str} {x.shape}\n".encode() + x.tobytes() for name, x in sorted(tensors.items())]
    return _hash(b"".join(parts))


def read_images(folder: Path) -> KnownImages:
    """Return what a run keeps of its test images; ValueError if the file is missing or damaged."""
    path = folder / FOLDER / "images.safetensors"
    tensors, header = _load(path, _read(path))
    if header.get("sha256") != _hash_of_tensors(tensors):
        raise ValueError(f"{path} is damaged: its contents do not match its hash")
    try:
        label_N, pose_NP, number_M, pixels_MCHW = (tensors[key] for key in ("label", "pose", "number", "pixels"))
        names, originals = tuple(map(str, header["pose"])), int(header["originals"])
        as_described = pose_NP.shape == (len(label_N), len(names)) and len(number_M) == len(pixels_MCHW)
        as_described &= label_N.ndim == number_M.ndim == 1 and pixels_MCHW.ndim == 4 and originals >= 1
        classes = label_N.dtype.kind == "u" and label_N.size > 0 and int(label_N.max()) < MOST_CLASSES
        if not (as_described and classes and pixels_MCHW.dtype == "u1" and number_M.dtype.kind == "i"):
            raise ValueError("its tensors have unexpected shapes or types")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return KnownImages(label_N, pose_NP, names, originals, number_M, pixels_MCHW)
