"""The benchmarks: what they measure, and how they refuse bad input."""

import json
import subprocess
import sys
from pathlib import Path

import fused
import measure
import measured
import pytest
import running
import traffic
from configured import configure

from tests.support.paths import ROOT
from tests.support.trainer import environment, run_script


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "benchmarks" / script), *words]
    return subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=300, check=False)


@pytest.mark.parametrize(
    ("script", "words", "text"),
    [
        ("fused.py", ("--networks", "tutoril"), "unknown 'tutoril'; known are tutorial, cnn"),
        ("fused.py", ("--seeds-at-once", "4,0"), "'0' must be a whole number above 0"),
        ("fused.py", ("--json", "/nowhere/out.json"), "cannot write '/nowhere/out.json'"),
        ("gpu.py", (), "there is no CUDA device here"),
        ("gpu.py", ("--parts", "tets"), "unknown 'tets'; known are tests, step"),
        ("floors.py", ("--device", "h1000"), "invalid choice: 'h1000'"),
        ("headline.py", ("--fraction", "2"), "2 must be above 0 and at most 1"),
        ("headline.py", ("--seeds", "0-"), "cannot read"),
        ("headline.py", ("--seeds", "0", "--processes", "2"), "1 seeds cannot keep 2 processes busy"),
    ],
)
def test_bad_input_is_one_line(
    script: str,
    words: tuple[str, ...],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_script(f"benchmarks/{script}", *words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.strip().splitlines()) == 1


def test_the_plain_tutorial_network_has_the_tutorials_size_and_work() -> None:
    found = traffic.work_per_image(configure(*measured.NETWORKS["tutorial"]))
    assert found["parameters"] == 27_360
    assert found["flop"] == pytest.approx(4.29e6, rel=0.02)
    assert 3e5 < found["bytes"] < 8e5


def test_ratios_are_of_pairs_and_failures_stay_out() -> None:
    loop = measured.Row(measured.Form("loader"), [{"images_per_s": 10.0}, {"images_per_s": 20.0}, {"error": "x"}])
    many = measured.Row(
        measured.Form("fused", seeds=4), [{"images_per_s": 30.0}, {"images_per_s": 80.0}, {"images_per_s": 9}]
    )
    assert many.over(loop) == pytest.approx((3 + 4) / 2)
    assert many.over(None) is None
    assert measured.best([loop, many], "fused") is many
    assert measured.best([loop, many], "fused", processes=2) is None


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("cuda", [True, False])
def test_every_form_that_is_promised_is_planned(quick: bool, cuda: bool) -> None:
    names = {str(form) + f" x {form.processes}" for form in fused.plan("tutorial", quick, None, cuda)}
    if cuda:
        assert {"loader 0 workers x 1", "resident x 1", "fused 32 seeds graph x 1", "fused 32 seeds x 1"} <= names
    else:
        assert {f"{form} x {n}" for form in ("loader 0 workers", "resident", "fused 4 seeds") for n in (1, 2)} <= names
        assert "vmap 4 seeds x 1" in names
        assert {"fused 16 seeds x 1", "fused 32 seeds x 1"} <= names


@pytest.mark.slow
def test_two_processes_measure_together(tmp_path: Path) -> None:
    job = {"cuda": False, "seconds": 0.1, "turns": 3, "again": 0, "root": str(tmp_path)}
    form = measured.Form("fused", processes=2, seeds=2)
    found = running.measure(form, job | {"network": measured.NETWORKS["stn_cx"]})
    assert found["images_per_s"] > 100
    assert len(found["processes"]) == 2
    with pytest.raises(RuntimeError, match=r"No such file|not found"):
        running.measure(measured.Form("loader"), job | {"network": measured.NETWORKS["tutorial"]})


@pytest.mark.slow
def test_headline_runs_the_real_command_line(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = run("headline.py", "--fraction", "0.0001", "--seeds", "0-1", "--nets", "cnn", "--json", str(file))
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert (record["steps"], record["networks"]["cnn"]["n"]) == (7, 2)
    assert record["projected_s"] > record["wall_s"]
    assert "Projected, not run" in done.stdout


@pytest.mark.slow
def test_what_sweeps_and_reports_cost_is_measured(tmp_path: Path) -> None:
    done = run("sweeps.py", "--seeds", "2", "--repeat", "1", "--json", str(tmp_path / "sweeps.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "sweeps.json").read_text())
    assert found["seeds"] == 200
    assert set(found["figures"]) == {"expansion", "expansion again", "status", "retry"}
    assert all(one["seconds"] > 0 and one["mb"] > 10 for one in found["figures"].values())
    few = ("--archs", "2", "--datasets", "1", "--seeds", "7", "--repeat", "1")
    done = run("report.py", *few, "--json", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["cells"], found["seeds"]) == (2, 14)
    assert found["figures"]["seconds"] > 0


def test_a_record_says_what_it_was_measured_on() -> None:
    assert {"date", "commit", "dirty", "cpu", "cores", "gpu", "torch", "command"} <= set(measure.machine(None))


def test_a_record_names_no_folder_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/fused.py", "--quick", "--json", "/some/folder/record.json"])
    assert measure.machine(None)["command"] == "python benchmarks/fused.py --quick --json record.json"
