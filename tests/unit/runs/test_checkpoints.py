"""Checkpoints: verified when they are read, with a fallback to the one before."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from stn.runs.directory import RunDir
from stn.training import checkpoints
from stn.training.checkpoints import SeedCheckpoint
from tests.support.records import result


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    for step in (10, 20, 30):
        model = {"w": torch.full((3, 2), float(step)), "n": torch.tensor(step)}
        checkpoints.save_seed(
            run, 0, step, SeedCheckpoint(model, {"w//momentum_buffer": torch.ones(3, 2)}, {}, {"best": None}), keep=2
        )
    return run


def test_newest_checkpoints_are_kept_and_loaded(run: RunDir) -> None:
    assert sorted(p.name for p in (run.checkpoints / "seed-0").iterdir()) == [
        "step-00000020.safetensors",
        "step-00000030.safetensors",
    ]
    saved = checkpoints.load_newest([(run, 0)])[0]
    assert saved.header["step"] == 30
    assert torch.equal(saved.model["w"], torch.full((3, 2), 30.0))
    assert torch.equal(saved.optim["w//momentum_buffer"], torch.ones(3, 2))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "not safetensors"])
def test_a_damaged_newest_falls_back_with_a_warning(
    run: RunDir, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = run.checkpoints / "seed-0" / "step-00000030.safetensors"
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        content = content[:-3]
    elif damage == "flipped":
        content[-2] ^= 1
    else:
        content = bytearray(b"" if damage == "empty" else b"\x80\x04 pickle?")
    newest.write_bytes(content)
    assert checkpoints.load_newest([(run, 0)])[0].header["step"] == 20
    assert re.search(r"warning: .*step-00000030.safetensors is damaged.*falling back", capsys.readouterr().out)


@pytest.mark.parametrize("of", ["sig", "seed", "step", "name"])
def test_a_file_of_another_run_seed_step_or_kind_under_this_name_is_refused(
    tmp_path: Path, of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (RunDir(tmp_path / (sig * 12) / "0-1") for sig in ("a", "b"))
    for at, seed, step in ((run, 0, 10), (run, 0, 20), (run, 1, 20), (other, 0, 20)):
        checkpoints.save_seed(at, seed, step, SeedCheckpoint({"w": torch.ones(2)}, {}, {}, {}), keep=2)
    checkpoints.save_weights(run, 0, "final", {"model/w": torch.ones(2)})
    ours, foreign = run.checkpoints / "seed-0", other.checkpoints / "seed-0"
    step = "step-00000020.safetensors"
    source = {
        "sig": foreign / step,
        "seed": run.checkpoints / "seed-1" / step,
        "step": ours / "step-00000010.safetensors",
    }
    shutil.copy(source.get(of, ours / "final.safetensors"), ours / step)
    assert [saved.header["step"] for saved in checkpoints.load_newest([(run, 0)])] == [10]
    assert re.search(f"{step} is another file under this name: its .* is .*, not ", capsys.readouterr().out)
    shutil.copy(source["step"], ours / "final.safetensors")
    with pytest.raises(ValueError, match="another file under this name"):
        checkpoints.load_final(run, result(0))


def test_a_header_that_was_changed_is_noticed(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    newest = run.checkpoints / "seed-0" / "step-00000030.safetensors"
    newest.write_bytes(newest.read_bytes().replace(b'best\\": null', b'best\\": true'))
    assert checkpoints.load_newest([(run, 0)])[0].header["step"] == 20
    assert "do not match its hash" in capsys.readouterr().out


def test_an_older_file_of_another_network_or_step_is_refused(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """Their headers have no identity: only what is in them tells."""
    newest, weights = run.checkpoints / "seed-0" / "step-00000030.safetensors", {"model/v": torch.ones(2)}
    saved = checkpoints.load_newest([(run, 0)])[0]
    shapes = checkpoints.shapes_of(saved.model, saved.optim)
    assert checkpoints.load_newest([(run, 0)], shapes)[0].header["step"] == 30
    for step in (30, "30", 20):
        header = {"step": step, "sha256": checkpoints.digest(weights)}
        newest.write_bytes(save(weights, {"stn": json.dumps(header)}))
        assert checkpoints.load_newest([(run, 0)], shapes)[0].header["step"] == 20
        assert f"{newest} is of another step or network; falling back" in capsys.readouterr().out


def test_a_save_that_was_cut_short_counts_for_no_seed(run: RunDir) -> None:
    run.write_status("running", step=20)
    assert checkpoints.saved_steps(run, 0) == {20}
    run.write_status("running", step=0)
    assert checkpoints.saved_steps(run, 0) == set()
    run.write_status("stopped", reason="SIGTERM")
    assert checkpoints.saved_steps(run, 0) == {20, 30}
    run.write_status("running", step=0, seeds="1-3")
    assert checkpoints.saved_steps(run, 0) == {20, 30}, "this is said of other seeds"
    run.write_status("running", step=20, seeds="0,7")
    assert checkpoints.saved_steps(run, 0) == {20}


def test_a_block_resumes_at_a_step_that_every_seed_has(run: RunDir) -> None:
    checkpoints.save_seed(run, 1, 20, SeedCheckpoint({"w": torch.ones(1)}, {}, {}, {}), keep=2)
    assert {s.header["step"] for s in checkpoints.load_newest([(run, 0), (run, 1)])} == {20}
    assert checkpoints.load_newest([(run, 0), (run, 2)]) == []


def test_final_weights_and_digest(run: RunDir) -> None:
    weights = {"b": torch.ones(2), "a": torch.zeros(3, 1).to(torch.bfloat16)}
    checkpoints.save_weights(run, 0, "final", weights)
    loaded = checkpoints.load_final(run, result(0))
    assert checkpoints.digest(loaded) == checkpoints.digest(dict(reversed(weights.items())))
    assert checkpoints.digest(loaded) != checkpoints.digest(weights | {"b": torch.tensor([1.0, 1.0000001])})
    with pytest.raises(ValueError, match=r"seed 7 of .* is not finished"):
        checkpoints.load_final(run, result(7))
    with pytest.raises(ValueError, match=r"is not what seed 0 of .* was scored with"):
        checkpoints.load_final(run, result(0, weights_sha256="0" * 64))


def test_layout_in_memory_does_not_change_the_digest() -> None:
    w = torch.randn(4, 3, 5, 5)
    assert checkpoints.digest({"w": w}) == checkpoints.digest({"w": w.to(memory_format=torch.channels_last)})
