"""Load images as uint8 tensors: MNIST from the package, CIFAR-10 from a folder.

MNIST and the binary CIFAR-10 are checked by SHA-256 before use, torchvision's files by its MD5.
"""

import hashlib
import lzma
import os
import socket
from contextlib import suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from stn.runs.files import write_atomic


class Images(NamedTuple):
    train_x: Tensor
    """uint8 [N, C, H, W]"""
    train_y: Tensor
    """int64 [N]"""
    test_x: Tensor
    test_y: Tensor


_MNIST = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_CIFAR10 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


def _verified(name: str, content: bytes, sha256: str) -> bytearray:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{name} is damaged: its SHA-256 is not the published one; replace the file")
    return bytearray(content)  # writable, as torch.frombuffer wants it


def _unpacked(packed: Path, sha256: str) -> bytearray:
    """Return the content of an .xz file and cache it beside the file, since unpacking takes a second."""
    plain = packed.with_suffix("")
    with suppress(OSError, ValueError):
        return _verified(plain.name, plain.read_bytes(), sha256)
    try:
        content = lzma.decompress(packed.read_bytes())
    except lzma.LZMAError:
        content = b""
    verified = _verified(packed.name, content, sha256)
    with suppress(OSError):
        write_atomic(plain, content)
    return verified


@lru_cache(maxsize=1)
def mnist(root: str | None = None) -> Images:
    """Load the four idx files that ship with the package; root is not needed."""
    folder = Path(str(resources.files("stn.data") / "mnist_xz"))
    contents = (_unpacked(folder / f"{name}.xz", sha256) for name, sha256 in _MNIST.items())
    train_x, train_y, test_x, test_y = (torch.frombuffer(content, dtype=torch.uint8) for content in contents)
    train_x, test_x = (x[16:].view(-1, 1, 28, 28) for x in (train_x, test_x))  # after a header
    return Images(train_x, train_y[8:].long(), test_x, test_y[8:].long())


@lru_cache(maxsize=1)
def cifar10(root: str | None = None) -> Images:
    """Load the binary version if it is there, else torchvision's layout, else let torchvision download it."""
    folder = Path(root or os.environ.get("STN_DATA") or "data")
    binary = next((f for f in (folder / "cifar-10-batches-bin", folder) if (f / "test_batch.bin").is_file()), None)
    return _cifar10_binary(binary) if binary else _cifar10_torchvision(folder)


def _cifar10_binary(folder: Path) -> Images:
    batches = []
    for name, sha256 in _CIFAR10.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {folder / name}: {error.strerror}") from None
        records = torch.frombuffer(_verified(str(folder / name), content, sha256), dtype=torch.uint8).view(-1, 3073)
        batches.append((records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()))
    x, y = (torch.cat(part) for part in zip(*batches[:5], strict=True))
    return Images(x, y, *batches[5])


def _download_cifar10(folder: Path) -> None:
    """Download torchvision's layout, which appears whole: other processes may be downloading it as well."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".cifar-10-", dir=folder) as temporary:
        archive = (folder / CIFAR10.filename).absolute()
        if check_integrity(archive, CIFAR10.tgz_md5):
            (Path(temporary) / CIFAR10.filename).symlink_to(archive)
        CIFAR10(temporary, download=True)
        try:
            (Path(temporary) / CIFAR10.base_folder).rename(folder / CIFAR10.base_folder)
        except OSError:
            if not (folder / CIFAR10.base_folder).is_dir():  # another process was first
                raise


def _cifar10_torchvision(folder: Path) -> Images:
    from torchvision.datasets import CIFAR10  # slow to import, and only needed here

    existed = folder.exists()
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # a firewall that drops packets must not hang the run
    try:
        if not (folder / CIFAR10.base_folder).is_dir():
            _download_cifar10(folder)
        train, test = (CIFAR10(str(folder), train=t) for t in (True, False))
    except (OSError, RuntimeError) as error:
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise ValueError(
            f"no usable CIFAR-10 in '{folder}' ({' '.join(str(error).split())}). Put the official binary version "
            f"there as {folder / 'cifar-10-batches-bin'} (data_batch_1.bin ... test_batch.bin), or torchvision's "
            f"{folder / 'cifar-10-batches-py'}, or name another folder with --data-root or STN_DATA"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
    x, y = ([torch.from_numpy(d.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(d.targets)] for d in (train, test))
    return Images(*x, *y)
