"""Run directories and checkpoints: atomic, deduplicated, verified."""

import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from stn.config.fields import steps_of
from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config, Data, Eval, Log, Optim, Train
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.runs import files
from stn.runs.directory import RunDir
from stn.training import checkpoints
from stn.training.checkpoints import SeedCheckpoint
from tests.support.records import metric, result


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    files.write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left.*{path}"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_contents_are_synced_before_a_name_appears_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str) -> Callable:
        call = getattr(os, name)

        def record(first: Any, *more: Any, **options: Any) -> object:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(first).st_mode)
            calls.append("fsync folder" if is_folder else name)
            return call(first, *more, **options)

        return record

    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, recorded(name))
    files.write_atomic(tmp_path / "a", "text")
    assert calls == ["fsync", "replace", "fsync folder"]
    calls.clear()
    assert files.publish(tmp_path / "b", "text")
    assert calls == ["fsync", "link", "fsync folder"]


def test_who_has_been_swept_away_has_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy was paused with its temporary file written; its successor has deleted that file."""
    link = os.link

    def late(temporary: Path, path: Path) -> None:
        temporary.unlink()
        link(temporary, path)

    monkeypatch.setattr(os, "link", late)
    assert not files.publish(tmp_path / "rows" / "0", "text")
    assert not list((tmp_path / "rows").iterdir())


def test_what_a_deposed_copy_appends_goes_nowhere(tmp_path: Path) -> None:
    """It was paused, does not know of its successor, and has metrics.jsonl open."""
    deposed, successor = RunDir(tmp_path), RunDir(tmp_path)
    deposed.cut_metrics([0], -1)
    deposed.add_metrics([metric(0, 1), metric(0, 2)])
    successor.cut_metrics([0], 1)
    successor.add_metrics([metric(0, 2, by="successor")])
    deposed.add_metrics([metric(0, 3)])
    deposed.sync_metrics()
    assert files.read_rows(successor.metrics) == [metric(0, 1), metric(0, 2, by="successor")]
    for run in (deposed, successor):
        run.close_metrics()


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"seed": 1}\n[1]\n\xff\n{"seed": 2, "x', encoding="latin-1")
    assert files.read_rows(path) == [{"seed": 1}]
    assert files.read_rows(tmp_path / "none") == []


def test_one_result_row_per_seed_and_finished_over_blocks(tmp_path: Path) -> None:
    a, b = (RunDir.of(str(tmp_path), "x", "sig", seeds) for seeds in ([0, 1], [1, 2]))
    a.add_results([result(1, v=1)])
    a.add_results([result(0, v=2)])
    a.add_results([result(1, v=3)])
    b.add_results([result(2, v=4)])
    assert [(r["seed"], r["v"]) for r in files.read_rows(a.results)] == [(0, 2), (1, 1)]
    assert set(b.finished()) == {0, 1, 2}


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.add_metrics([metric(s, t) for t in (5, 10, 15) for s in (0, 1)])
    with run.metrics.open("a") as file:
        file.write('{"seed": 0, "step"')
    run.cut_metrics([0], 10)
    assert [(r["seed"], r["step"]) for r in files.read_rows(run.metrics)] == [
        (0, 5),
        (1, 5),
        (0, 10),
        (1, 10),
        (1, 15),
    ]


def test_a_second_copy_is_kept_out_until_the_first_leaves(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    first.lease.take(print)
    with pytest.raises(OSError, match=rf"another process \(.*:{os.getpid()}\)"):
        second.lease.take(print, patience_s=0)
    first.lease.release()
    second.lease.take(print, patience_s=0)
    second.lease.release()


def test_long_seed_lists_get_a_short_folder(tmp_path: Path) -> None:
    block = RunDir.of(str(tmp_path), "x", "sig", list(range(0, 2000, 2))).path.name
    assert block.startswith("1000-seeds-")
    assert len(block) < 40


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


def test_temporary_files_of_killed_processes_do_not_stay(tmp_path: Path) -> None:
    run, here = RunDir(tmp_path), socket.gethostname()
    dead, living = f".x.{here}-999999998-1.tmp", f".x.{here}-{os.getppid()}-1.tmp"
    folders = [tmp_path, run.published, run.pictures, run.lease.folder, run.checkpoints / "seed-0"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (dead, living, ".x.elsewhere-1-1.tmp"):
            (folder / name).touch()
    checkpoints.drop_temporary_files(run, has_lease=False)
    assert not list(tmp_path.rglob(dead))
    assert len(list(tmp_path.rglob(".x.*.tmp"))) == 2 * len(folders)
    checkpoints.drop_temporary_files(run)
    assert {path.parent for path in tmp_path.rglob(".x.*.tmp")} == {run.lease.folder}


def test_layout_in_memory_does_not_change_the_digest() -> None:
    w = torch.randn(4, 3, 5, 5)
    assert checkpoints.digest({"w": w}) == checkpoints.digest({"w": w.to(memory_format=torch.channels_last)})


def test_seed_lists_round_trip() -> None:
    assert parse_seeds("0,3,8-10") == [0, 3, 8, 9, 10]
    assert format_seeds([10, 9, 8, 3, 0]) == "0,3,8-10"


def test_durations() -> None:
    assert steps_of("2 epochs", 938) == 1876
    assert steps_of("0.5 epochs", 938) == 469
    assert steps_of("500 steps", 938) == 500
    assert steps_of("20.8 %", 98, 4900) == 1019
    assert [Log(every=text).every for text in ("1epoch", "5steps", "7.5%")] == [
        "1 epochs",
        "5 steps",
        "7.5 %",
    ]


def sig(**sections) -> str:
    return signature(resolve(Config(**sections)))


def test_signature_is_of_the_resolved_science() -> None:
    base = sig()
    assert base == sig(arch=Arch(name="stn_slx", depth=1, net="finnveden_r", padding="border"))
    assert base == sig(train=Train(epochs=8)) == sig(train=Train(steps=8 * 469))
    assert base == sig(train=Train(seeds="5-9", fuse=2, threads=1, time_limit=3), log=Log(name="x", runs="y"))
    assert base == sig(data=Data(root="/somewhere"), optim=Optim(accumulate=4))
    others = [
        sig(arch=Arch(depth=2)),
        sig(train=Train(epochs=7)),
        sig(data=Data(limit_train=100)),
        sig(optim=Optim(lr=0.1)),
        sig(train=Train(precision="bf16")),
    ]
    assert len({base, *others}) == 6


def test_a_fraction_of_a_run_has_all_of_its_schedule() -> None:
    schedule = {"schedule": "multistep", "milestones": ("3 epochs", "2814 steps"), "warmup": "469 steps"}
    tenth = Config(optim=Optim(**schedule), train=Train(epochs=8, fraction=0.1), eval=Eval(every="1 epochs"))
    shorter = {"milestones": ("141 steps", "281 steps"), "warmup": "47 steps", "step_every": "704 steps"}
    same = Optim(**schedule | shorter)
    written_out = Config(optim=same, train=Train(steps=375), eval=Eval(every="47 steps"))
    found = resolve(tenth)
    assert found == resolve(written_out)
    assert found.log.every == "50 steps", "the console is read as before"
    least = resolve(Config(train=Train(epochs=8, fraction=1e-9)))
    assert (least.train.steps, least.eval.every, least.optim.warmup) == (1, "1 steps", "0 steps")
    assert resolve(Config(train=Train(steps=1000, fraction=0.5))).train.steps == 500


def test_a_share_of_a_run_is_of_what_is_run() -> None:
    def found(**train) -> tuple[str, str, str]:
        shares = Config(
            optim=Optim(warmup="20 %"), eval=Eval(every="50 %"), log=Log(every="10 %"), train=Train(**train)
        )
        config = resolve(shares)
        return config.optim.warmup, config.eval.every, config.log.every

    assert found(steps=1000) == ("200 steps", "500 steps", "100 steps")
    assert found(epochs=2) == ("188 steps", "469 steps", "94 steps")
    assert found(steps=1000, fraction=0.1) == found(steps=100) == ("20 steps", "50 steps", "10 steps")


def test_resolved_configuration_reads_back_to_itself(tmp_path: Path) -> None:
    config = resolve(Config(optim=Optim(schedule="multistep", milestones=("3 epochs",)), data=Data(scale=(0.9, 1.1))))
    (tmp_path / "c.yaml").write_text(dump_yaml(config))
    again = resolve(load_yaml(tmp_path / "c.yaml"))
    assert again == config
    assert signature(again) == signature(config)
    assert json.loads(config.model_dump_json())["optim"]["milestones"] == ["1407 steps"]
