"""Weights that somebody else has saved: read without executing them, and refused in one line."""

import os
import resource
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stn.evaluation.foreign_weights import fit, load_plain
from tests.support.foreign import Theirs, ours


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_nothing_that_is_loaded_is_executed(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "bias": Evil(tmp_path / "executed")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="was not loaded; save its state_dict"):
        load_plain(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have been


def test_bad_files_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        load_plain(tmp_path / "none.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"save its state_dict: torch.save\(model.state_dict\(\), FILE\)"):
        load_plain(tmp_path / "whole.pt")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="no plain state dict"):
        load_plain(tmp_path / "checkpoint.pt")
    torch.save({"a.weight": torch.ones(2), "a.bias": torch.tensor([1.0, torch.nan])}, tmp_path / "diverged.pt")
    with pytest.raises(ValueError, match=r"a\.bias has non-finite values"):
        load_plain(tmp_path / "diverged.pt")
    torch.save(Theirs().state_dict(), tmp_path / "whole.pt")
    save_file(Theirs().state_dict(), whole := tmp_path / "whole.safetensors")
    (tmp_path / "type.safetensors").write_bytes(whole.read_bytes().replace(b'"F32"', b'"f32"'))
    with pytest.raises(ValueError, match="unknown variant") as error:
        load_plain(tmp_path / "type.safetensors")
    assert len(str(error.value)) < len(str(tmp_path)) + 270, "safetensors lists every type"
    for name, message in (("whole.pt", "not written by torch.save"), ("whole.safetensors", "no safetensors file")):
        content = (tmp_path / name).read_bytes()
        for part in (b"", b"hello this is no file of weights", content[: len(content) // 2]):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(ValueError, match=f"{message}.* damaged"):
                load_plain(tmp_path / name)


def _allocates(size: int) -> object:
    return type("Bomb", (), {"__reduce__": lambda self: (bytearray, (size,))})()


ODD = {
    "an integer for a name": (lambda: {1: torch.ones(2)}, "names that are not strings"),
    "a line break in a name": (lambda: {"a\nb": torch.ones(2)}, "names that are not strings"),
    "many tensors": (lambda: {f"a{i}": torch.ones(1) for i in range(10_001)}, "more than 10,000 tensors"),
    "meta": (lambda: {"a": torch.empty(10**12, device="meta")}, "a is a meta tensor, without values"),
    "sparse": (lambda: {"a": torch.eye(3).to_sparse()}, "a is not dense floats or integers but torch.sparse_coo"),
    "quantised": (lambda: {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "torch.qint8"),
    "complex": (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "torch.complex64"),
    "float8": (lambda: {"a": torch.ones(2).to(torch.float8_e4m3fn)}, "torch.float8_e4m3fn"),
    "expanded": (lambda: {"a": torch.zeros(1).expand(2 * 10**9)}, "a is expanded: it has more elements than values"),
    "expanded further": (lambda: {"a": torch.zeros(1).expand(10**9, 10**9)}, "a is expanded"),
    "4 GB of another type": (lambda: {"a": _allocates(4 * 10**9)}, "is damaged: MemoryError"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_tensors_without_plain_values_are_one_line(tmp_path: Path, name: str) -> None:
    content, message = ODD[name]
    torch.save(content(), tmp_path / "odd.pt")
    limits, before = resource.getrlimit(resource.RLIMIT_AS), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message) as error:
        load_plain(tmp_path / "odd.pt")
    assert len(str(error.value).splitlines()) == 1
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "small.pt")
    with zipfile.ZipFile(tmp_path / "small.pt") as small, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as bomb:
        for name in small.namelist():
            with bomb.open(name, "w", force_zip64=True) as file:
                for part in [bytes(1 << 24)] * 96 if name.endswith("/data/0") else [small.read(name)]:
                    file.write(part)
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 22
    with pytest.raises(ValueError, match="is damaged: RuntimeError"):
        load_plain(tmp_path / "bomb.pt")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integers_are_no_weights(dtype: torch.dtype) -> None:
    state = ours().state_dict()
    with pytest.raises(ValueError, match=rf"stages\.2\.1\.bias needs floats, and these weights have {dtype}"):
        fit(state | {"stages.2.1.bias": state["stages.2.1.bias"].to(dtype)}, ours())
