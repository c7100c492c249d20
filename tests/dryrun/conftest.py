"""The stand-in for CUDA's runtime: $STN_DRYRUN names the script that builds it; run.sh lies beside it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.forked import ForkServer
from tests.support.paths import ROOT
from tests.support.trainer import environment

Dry = Callable[..., tuple[dict, str]]
Server = tuple[ForkServer, dict[str, str]]
"""What forks programs, and their environment."""


@pytest.fixture(scope="session")
def stand_in() -> list[str]:
    """Return the words that run Python on the stand-in."""
    script = Path(os.environ.get("STN_DRYRUN", ""))
    if not script.is_file():
        pytest.skip("no stand-in for CUDA (STN_DRYRUN names a script that builds one)")
    folder, venv = Path.home() / ".cache" / "stn-dryrun", sys.prefix
    if not (folder / "lib" / "libcuda.so.1").exists():
        built = subprocess.run([script, venv, folder], capture_output=True, text=True, timeout=500, check=False)
        if built.returncode:
            pytest.skip(f"the stand-in for CUDA could not be built: {built.stderr.splitlines()[-1]}")
    return [str(script.with_name("run.sh")), venv, str(folder)]


@pytest.fixture(scope="session")
def stand_in_with_triton(stand_in: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the words that run Python where Triton compiles its kernels, too: the driver has what it needs."""
    run, venv, base = stand_in
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the stand-in's driver")
    folder = tmp_path_factory.mktemp("triton")
    (folder / "lib").mkdir()
    for name in ("site", "curand"):
        (folder / name).symlink_to(Path(base) / name)
    for tool in (folder / "site" / "triton" / "backends" / "nvidia" / "bin").glob("ptxas*"):
        tool.chmod(0o755)  # in the stand-in's own folder: a wheel unpacked by zipfile loses it
    source, runtime = Path(__file__).with_name("driver.c"), folder / "lib" / "libfakecuda.so"  # is loaded first
    rest = [Path(base) / "lib" / name for name in (runtime.name, "libcuda.so.1")]
    subprocess.run(["cc", "-shared", "-fPIC", source, "-Wl,--no-as-needed", *rest, "-o", runtime], check=True)
    runtime.with_name("libcuda.so.1").symlink_to(runtime)
    return [run, venv, str(folder)]


@pytest.fixture(scope="session")
def server(stand_in: list[str]) -> Iterator[Server]:
    with _serve(stand_in) as server:
        yield server


@pytest.fixture(scope="session")
def server_with_triton(stand_in_with_triton: list[str]) -> Iterator[Server]:
    folder = stand_in_with_triton[2]
    kept = {"TRITON_CACHE_DIR": f"{folder}/kernels", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
    with _serve(stand_in_with_triton, **kept) as server:
        yield server


@pytest.fixture
def dry(server: Server, tmp_path: Path) -> Dry:
    """Return a function that runs a program and returns what was counted and its output."""
    return partial(_run, server, tmp_path)


@pytest.fixture
def dry_with_triton(server_with_triton: Server, tmp_path: Path) -> Dry:
    """Return such a function for where Triton compiles its kernels, too."""
    return partial(_run, server_with_triton, tmp_path)


@contextmanager
def _serve(stand_in: list[str], **more: str) -> Iterator[Server]:
    """Start the process that programs are forked from: half of such a test would be imports."""
    say = "import json, os; print(json.dumps(dict(os.environ)))"
    told = subprocess.run([*stand_in, "-c", say], env=environment(), capture_output=True, text=True, check=True)
    within = json.loads(told.stdout) | more
    forked = ForkServer(within, *stand_in)
    yield forked, within
    forked.end()


def _run(server: Server, tmp_path: Path, program: Path | str, *words: object) -> tuple[dict, str]:
    report, probe = tmp_path / "report.json", ROOT / "tests" / "dryrun" / "probe.py"
    forked, within = server
    arguments = map(str, (probe, report, program, *words))
    done = forked.run(list(arguments), within | {"FAKECUDA_LOG": str(tmp_path / "cuda.log")})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text()), done.stdout + done.stderr
