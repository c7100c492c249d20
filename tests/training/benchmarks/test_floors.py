"""What is counted without a GPU, and the command for the day that one is there."""

from collections.abc import Callable
from pathlib import Path

import floors
import gpu
import measured
import pytest


def test_floors_count_a_step_without_a_gpu() -> None:
    few, many, most = (floors.count_step("stn_slx", seeds) for seeds in (2, 4, 6))
    assert few["launches"] == many["launches"]
    assert 100 < few["launches"] < 220
    assert many["flop"] == 2 * few["flop"]
    assert most["bytes"] - many["bytes"] == pytest.approx(many["bytes"] - few["bytes"], rel=1e-3)  # images are resident
    needed = floors.floors({"launches": 1000, "bytes": 3.35e9, "flop": 6.69e9}, "h100")
    assert needed == pytest.approx({"launches_ms": 1.5, "bytes_ms": 1.0, "flop_ms": 0.1})


def test_each_prediction_stands_beside_its_measurement_or_nothing() -> None:
    assert set(gpu.measurements({}).values()) == {None}
    form = {"kind": "fused", "graph": True, "precision": "fp32"}
    rows = [
        {"form": form | {"seeds": 1}, "median": 100e3},
        {"form": form | {"seeds": 64, "graph": False}, "median": 1.0},
        {"form": form | {"seeds": 64}, "median": 600e3},
    ]
    found = gpu.measurements({"fused": {"record": {"stn_slx": rows}}, "headline": {"record": {"projected_s": 1800.0}}})
    assert found["64 seeds over 1, stn_slx, both in a graph"] == 6
    assert found["hours of R for cnn and stn_slx, projected"] == 0.5
    assert found["thousand images/s, tutorial, 64 seeds"] is None


def test_a_part_that_hangs_is_ended_and_a_form_that_may_fail_does_not_fail_the_rest() -> None:
    done = gpu.run("-c", "import time; print('begun', flush=True); time.sleep(60)", limit_s=1)
    assert done["rc"] == 124
    assert done["output"] == ["begun"]
    assert "vmap" in measured.MAY_FAIL


def test_a_part_that_is_there_is_not_run_again_and_a_damaged_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def part(name: str) -> Callable[[Path], dict]:
        return lambda folder: ran.append(name) or {"rc": 0}

    monkeypatch.setattr(gpu, "PARTS", {name: part(name) for name in ("tests", "step")})
    monkeypatch.setattr(gpu, "device", lambda: "some device")
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path)])
    assert gpu.main() == 0
    (tmp_path / "step.json").write_text('{"rc": 0, "torn')
    assert gpu.main() == 0
    assert ran == ["tests", "step", "step"]
