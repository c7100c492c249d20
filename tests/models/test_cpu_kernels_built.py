"""How the C kernels are built and kept; without a compiler training goes on with PyTorch's."""

import json
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

from stn.models import kernels
from stn.models.kernels import compiled
from tests.support.trainer import SMALL, command, environment

needs_compiler = pytest.mark.skipif(compiled.library()[0] is None, reason=compiled.library()[1] or "never")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stn-harness"


def build() -> compiled.Library:
    return compiled.library.__wrapped__()


@needs_compiler
def test_a_library_is_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build()[0] is not None
    (kept,) = cache.iterdir()
    monkeypatch.setattr(compiled, "_build", lambda *_: pytest.fail("built again"))
    assert build()[0] is not None
    monkeypatch.setattr(compiled, "_instruction_set", lambda: "flags: another CPU")
    built = []
    monkeypatch.setattr(compiled, "_build", lambda path, *_: built.append(path.write_bytes(kept.read_bytes())))
    assert build()[0] is not None
    assert len(built) == 1
    assert len(list(cache.iterdir())) == 2


@needs_compiler
def test_a_damaged_library_is_built_again(cache: Path) -> None:
    build()
    (kept,) = cache.iterdir()
    right = kept.read_bytes()
    for damaged in (b"", b"not a library", right[:100], right[:4096], right[:-4000], right[:9000] + bytes(9000)):
        kept.unlink()  # never in place: a process may have it mapped
        kept.write_bytes(damaged)
        assert build()[0] is not None
        assert kept.read_bytes()[:4] == b"\x7fELF"
        assert list(cache.iterdir()) == [kept]


@needs_compiler
def test_without_a_place_to_keep_it_a_library_is_built_for_the_process(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert build()[0] is not None

    cache.unlink()
    write, full = Path.write_bytes, cache

    def write_unless_full(self: Path, data: bytes) -> int:
        if full in self.parents:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_unless_full)
    assert build()[0] is not None
    assert not list(cache.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    full = tmp_path
    assert build() == (None, "a library cannot be built or loaded: [Errno 28] No space left on device", False)


@needs_compiler
def test_its_threads_are_pytorchs(cache: Path) -> None:
    build()
    (kept,) = cache.iterdir()
    loaded = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}
    assert b"libgomp" not in kept.read_bytes()
    assert len([name for name in loaded if name.startswith(("libgomp", "libomp", "libiomp"))]) == 1


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_SECONDS", 1)
    cases = {
        "no-such-compiler": "there is no C compiler (no-such-compiler: No such file or directory)",
        script(tmp_path / "fails", "echo 'cpu.c:1: no vectors' >&2; exit 1"): "fails cannot build cpu.c: cpu.c:1: no",
        script(
            tmp_path / "full", "echo 'Messages:' >&2; echo 'Fatal error: no space' >&2; exit 1"
        ): "cpu.c: Fatal error",
        script(tmp_path / "silent", "exit 3"): "silent cannot build cpu.c: exit status 3",
        script(tmp_path / "hangs", "exec sleep 60"): "hangs takes longer than 1 s",
        script(tmp_path / "no-library", 'while [ "$1" != -o ]; do shift; done; echo no > "$2"'): "file too short",
        "'unbalanced": "No closing quotation",
    }
    for compiler, reason in cases.items():
        monkeypatch.setenv("CC", compiler)
        functions, told, _ = build()
        assert functions is None
        assert reason in told, told
        assert "\n" not in told


def test_without_a_compiler_training_goes_on_and_says_so(tmp_path: Path) -> None:
    words = command("--steps", "2", *SMALL, runs=tmp_path / "runs")
    without = environment(CC="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    done = subprocess.run(words, env=without, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "PyTorch's kernels alone, because there is no C compiler (no-such-compiler" in " ".join(done.stdout.split())
    (env,) = tmp_path.rglob("env.json")
    assert json.loads(env.read_text())["kernels"] == "PyTorch"


def test_what_a_device_has() -> None:
    assert kernels.kind(torch.device("mps")) == "PyTorch"
    assert kernels.kind(torch.device("cpu")) == ("C" if compiled.library()[0] else "PyTorch")


@needs_compiler
def test_a_library_is_kept_for_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether products and sums are fused is a flag for each file: another one must not find the same library."""
    names = set()
    for contract in ("-ffp-contract=off", "-ffp-contract=fast"):
        monkeypatch.setattr(compiled, "_SOURCES", dict.fromkeys(compiled._SOURCES, contract))
        names.add(Path(compiled._load(["cc"], [*compiled._FLAGS])._name).name)
    assert len(names) == 2


@needs_compiler
def test_a_library_is_kept_for_what_its_files_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = {Path(compiled._load(["cc"], [*compiled._FLAGS])._name).name}
    shared = (compiled._C / "vectors.h").read_text()
    (tmp_path / "vectors.h").write_text(shared + "/* edited */")
    monkeypatch.setattr(compiled, "_C", tmp_path)
    names.add(Path(compiled._load(["cc"], [*compiled._FLAGS])._name).name)
    assert len(names) == 2
