"""The comparison with other programs: the same networks, missing packages, and what its record says."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure
import peer_forms
import peer_rows
import peers
import pytest
import turns
from measured import Form, Row

from tests.support.paths import ROOT
from tests.support.trainer import environment


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mnist")
    peers.unpack(str(folder))
    return str(folder)


def run(*words: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), *words]
    return subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=timeout, check=False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--peers", "kears"), "unknown 'kears'; known are accelerate, lightning, timm, vmap, jax"),
        (("--networks", "stn_c1"), "unknown 'stn_c1'; known are cnn"),
        (("--steps", "0"), "'0' must be a whole number above 0"),
        (("--json", "/nowhere/out.json"), "cannot write '/nowhere/out.json'"),
    ],
)
def test_bad_arguments_of_peers_are_one_line(words: tuple[str, ...], text: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_peer_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "jax", ("torch", "no_such_jax"))
    assert peers.missing("jax") == "no_such_jax not installed; pip install '.[peers]'"
    assert peers.missing("vmap") is None


def test_the_extra_has_every_package_of_a_peer() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    extra = text[text.index("\npeers = [") : text.index("\ndev = [")]
    dependencies = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")]
    for package in peers.PACKAGES:
        assert f'"{package}>=' in extra + dependencies, package
    assert not any(f'"{package}>=' in text[text.index("\ndev = [") :] for package in peers.PACKAGES)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("network", peers.NETWORKS)
def test_every_peer_and_each_of_our_forms_is_planned(network: str, quick: bool) -> None:
    planned = [f"{peer_rows.label(form)} x {form.processes}" for form in peers.plan(network, list(peers.PEERS), quick)]
    assert len(planned) == len(set(planned))
    expected = {f"{peer}, 1 seed x 1" for peer in ("accelerate", "lightning", "timm")}
    expected |= {"vmap, 4 seeds x 1", "vmap, 8 seeds x 1", "accelerate, 1 seed x 2", "ours, 4 seeds x 2"}
    expected |= {f"ours, {n} x 1" for n in ("1 seed", "4 seeds", "8 seeds")}
    if not quick or network in peers.QUICK_JAX:
        expected |= {"jax, 1 seed x 1", "jax, 4 seeds x 1"}
    assert expected <= set(planned)
    assert not any(name.startswith("timm") for name in map(str, peers.plan(network, ["vmap"], quick)))


def row(kind: str, speeds: list[float], seconds: list[float], processes: int = 1, seeds: int = 1) -> Row:
    parts = [{"images_per_s": [0.0, 8.0, 12.0]}] * processes
    rounds: list[dict[str, Any]] = [
        {
            "images_per_s": v,
            "images_per_cpu_s": v / 2,
            "ready_s": s,
            "exit_s": 2 * s,
            "result_cpu_s": 2 * s,
            "accuracy": [0.5],
            "others_cores": 0,
            "processes": parts,
        }
        for v, s in zip(speeds, seconds, strict=True)
    ]
    return Row(Form(kind, processes=processes, seeds=seeds), rounds)


def test_ratios_are_to_the_best_peer_of_the_same_round_and_number_of_processes() -> None:
    slow, fast = row("timm", [10.0, 10.0], [5.0, 6.0]), row("accelerate", [20.0, 40.0], [8.0, 9.0])
    twice, ours = row("lightning", [500.0, 500.0], [1.0, 1.0], processes=2), row("fused", [60.0, 80.0], [10.0, 3.0])
    found = peer_rows.describe(ours, [slow, fast, twice, ours])
    assert found["x best peer"] == pytest.approx((60 / 20 + 80 / 40) / 2)
    assert found["x soonest"] == pytest.approx((5 / 10 + 6 / 3) / 2)
    assert found["x exited"] == pytest.approx((5 / 20 + 6 / 6) / 2)  # our exit, the peer's result
    assert found["x best per CPU s"] == found["x best peer"]
    assert found["x least CPU s"] == found["x soonest"]
    assert (found["n"], found["low"], found["high"], found["result_s"]) == (2, 60.0, 80.0, 6.5)
    one_round = row("fused", [10.0], [1.0], processes=2)
    assert peer_rows.spread(one_round) == (16.0, 24.0)  # of the stretches, both processes together, without the first
    failed = Row(Form("timm"), [{"error": "x"}])
    assert peer_rows.describe(failed, [failed, ours])["images_per_s"] == 0
    assert peer_rows.describe(ours, [failed, ours])["x best peer"] is None


@pytest.mark.parametrize("tested", [True, False])
def test_a_meter_tests_the_network_once_before_its_turns(tested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is to be tested at all; its work has ended before it says so."""
    asked, said = [], io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    monkeypatch.setattr(turns.select, "select", lambda *given: ([sys.stdin], [], []))
    job = {"steps": 3, "tested": tested, "seconds": 0.0, "answers": said}
    meter = peer_forms.Meter(job, lambda: asked.append(1) or [0.5])
    steps = 1
    while not meter.enough(64, lambda: said.write("ended\n")):
        steps += 1
        assert bool(asked) == (tested and steps > 3)
    assert (asked, meter.accuracy, steps) == (([1], [0.5], 6) if tested else ([], [], 6))
    lines = [line[:5] for line in said.getvalue().splitlines()]
    assert lines == ["ended", "ready", "ended", "ended", '{"ima', "ended", "ready"]


def test_starts_are_timed_of_peers_that_reach_a_result() -> None:
    seeds, timed = {"accelerate": 1, "vmap": 4, "fused": 1}, []
    for quick in (True, False):
        timed.append([kind for kind, n in seeds.items() if peers.start_is_timed(Form(kind, seeds=n), {"quick": quick})])
    assert timed == [["accelerate"], ["accelerate", "vmap"]]


@pytest.mark.slow
@pytest.mark.parametrize("peer", [*peers.PEERS, "two"])
def test_a_peer_learns_and_is_measured(peer: str, root: str) -> None:
    kind, processes = ("accelerate", 2) if peer == "two" else (peer, 1)
    if reason := peers.missing(kind):
        pytest.skip(reason)
    job = {"cuda": False, "seconds": 0.1, "steps": 40, "quick": False, "root": root, "threads": 1, "again": 0}
    form = Form(kind, processes=processes, seeds=2 if kind in ("vmap", "jax") else 1, script="peer_forms.py")
    process = peers.begin(form, job | {"network": peers.NETWORKS["mnist"]})
    process.turn()
    found = peers.finish(process)
    assert found["images_per_s"] > 10
    assert found["ready_s"] > 0
    assert found["result_cpu_s"] > 0
    assert found["images_per_cpu_s"] > 10
    assert len(found["accuracy"]) == processes * form.seeds
    assert all(0.12 < accuracy <= 1 for accuracy in found["accuracy"])


@pytest.mark.slow
def test_the_record_of_peers_has_machine_ratios_and_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "peers.json"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # which the script sets for its own process
    few = [form for form in peers.plan("cnn", ["vmap"], True) if form.processes == 1 and form.seeds != 4]
    monkeypatch.setattr(peers, "plan", lambda network, names, quick: few)
    words = ("--quick", "--steps", "3", "--networks", "cnn", "--peers", "vmap", "--json", str(file))
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    assert peers.main() == 0
    record = json.loads(file.read_text())
    assert set(measure.machine(None)) <= set(record)
    assert {"rounds", "steps", "skipped", "summary", "wall_s", "seconds", "turns"} <= set(record)
    assert set(record["summary"]["cnn"]) >= {"ours, 1 seed, 1 process", "ours, 8 seeds, 1 process"}
    ours = next(r for r in record["cnn"] if r["form"] == Form("fused").__dict__)
    assert ours["n"] == 1
    assert 0 < ours["low"] <= ours["high"]
    assert 0 < ours["result_s"] < ours["exit_s"]
    assert 0 <= ours["accuracy"] <= 1
    assert math.isfinite(ours["x best peer"])


def test_a_record_names_vector_instructions_versions_and_threads() -> None:
    record = measure.machine(None, ("no_such_package",))
    assert {"vector_instructions", "versions", "omp_num_threads", "commit", "cpu"} <= set(record)
    assert {"python", "torch", "numpy"} <= set(record["versions"])
    assert "no_such_package" not in record["versions"]
    assert measure.vector_instructions("fpu sse2 smep avx2 avx512f amx_bf16 abm") == ["avx2", "avx512f", "amx_bf16"]
