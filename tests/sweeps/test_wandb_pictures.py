"""Pictures, tables and weights on W&B: the same whoever has sent them, once, and read back with the client."""

import json
from pathlib import Path

import pytest
import wandb
from PIL import Image

from launch.wandb.sync import sync
from stn.runs.directory import Row, RunDir
from stn.tracking import sinks
from stn.tracking.log import WandbSink, log_end
from stn.tracking.pictures import COLUMNS, warps_file
from tests.support.wandb_runs import config, record, result_of
from tests.support.wandb_server import WandbServer

CONFUSION = [[3, 1], [0, 4]]


def paint(path: Path, shade: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 4), (shade, 0, 0)).save(path)
    return path.read_bytes()


def result(seed: int) -> Row:
    return result_of(seed) | {"confusion": CONFUSION, "steps": 200, "epochs": 2.0, "weights_sha256": f"{seed:064x}"}


def pictured(tmp_path: Path, seeds: tuple[int, ...] = (0, 1), ended: bool = True, **log_fields) -> RunDir:
    """A run directory with the warps of two evaluations of each seed, and what a run ends with."""
    run = record(tmp_path, dict.fromkeys(seeds, 200), **log_fields)
    run.add_results([result(seed) for seed in seeds])
    for seed in seeds:
        for step in (100, 200):
            paint(warps_file(run, seed, step), seed + step)
        run.final(seed).parent.mkdir(parents=True)
        run.final(seed).write_bytes(b"weights of %d" % seed)
    if ended:
        end(run)
    return run


def end(run: RunDir) -> None:
    for i, name in enumerate(("curves", "confusion", "warp")):
        paint(run.pictures / f"{name}.png", i)
    run.write_status("finished")


def live(run: RunDir, seeds: tuple[int, ...] = (0, 1), **log_fields) -> None:
    fields = config(wandb="online", **log_fields)
    sink = WandbSink(run, fields, "abcabcabcabc", list(seeds), print)
    sink.close([result(seed) for seed in seeds])
    log_end(fields, "abcabcabcabc", run)


def content(server: WandbServer, known: str) -> tuple[list[Row], Row]:
    """Return history and summary of a run without times and the random names of tables."""

    def lasting(row: Row) -> Row:
        kept = {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime", "_wandb")}
        for value in kept.values():
            if isinstance(value, dict):
                for key in ("artifact_path", "_latest_artifact_path", "path"):
                    value.pop(key, None)
        return kept

    kept = server.runs[known]
    return [lasting(row) for row in kept.rows], lasting(json.loads(kept.summary))


def test_live_and_upload_show_the_same_and_each_once(server: WandbServer, tmp_path: Path) -> None:
    run = pictured(tmp_path, wandb="online", wandb_artifact=True)
    live(run, wandb_artifact=True)
    theirs = {known: content(server, known) for known in ("exp-abcabcabcabc-0", "exp-abcabcabcabc-1")}
    assert sync([run], print) == (0, 0, 0), "the server has all of it"
    sent = [artifact["artifactCollectionName"] for artifact in server.files.artifacts]
    assert sorted(sent) == ["exp-abcabcabcabc-0-weights", "exp-abcabcabcabc-1-weights", "run-exp-abcabcabcabc-0-seeds"]
    server.runs.clear()
    server.files.contents.clear()
    (run.path / "wandb-sync.json").unlink()
    assert sync([run], print) == (12, 2, 0)
    assert {known: content(server, known) for known in theirs} == theirs
    (history, summary), (others, _) = theirs["exp-abcabcabcabc-0"], theirs["exp-abcabcabcabc-1"]
    shown = [(row["_step"], sorted(key for key in row if isinstance(row[key], dict))) for row in history]
    last = ["pictures/confusion", "pictures/curves", "pictures/warp", "seeds"]
    assert shown[-4:] == [(400, []), (401, ["warps"]), (402, ["confusion"]), (403, last)]
    assert [row["_step"] for row in others][-1] == 402, "the first finished seed shows the end of all"
    assert summary["weights_artifact"] == f"{0:064x}"
    assert server.files.of_artifact("exp-abcabcabcabc-1-weights")["final.safetensors"] == b"weights of 1"
    tables = [
        f for name, f in server.files.of_run("exp-abcabcabcabc-0").items() if name.startswith("media/table/seeds")
    ]
    table = json.loads(tables[0])
    assert (tuple(table["columns"]), [line[:3] for line in table["data"]]) == (
        COLUMNS, [[0, "finished", 0.9], [1, "finished", 0.9]],
    )  # fmt: skip


def test_rows_of_an_earlier_block_are_sent_before_the_end_is_shown(server: WandbServer, tmp_path: Path) -> None:
    run = pictured(tmp_path, wandb="online")
    live(run, (1,))  # seed 0 was trained before, while W&B was out of reach
    assert [row["_step"] for row in server.runs["exp-abcabcabcabc-0"].rows][:2] == [100, 200]
    assert sync([run], print)[2] == 0


def test_the_client_reads_the_images_back(server: WandbServer, tmp_path: Path) -> None:
    run = pictured(tmp_path)
    sync([run], print)
    (there,) = list(wandb.Api().runs("me/stn", filters={"name": {"$in": ["exp-abcabcabcabc-0"]}}, lazy=False))
    rows = server.runs["exp-abcabcabcabc-0"].rows
    expected = {row["warps"]["path"]: warps_file(run, 0, row["global_step"]) for row in rows if "warps" in row}
    expected |= {rows[-1][f"pictures/{name}"]["path"]: run.pictures / f"{name}.png" for name in ("curves", "warp")}
    assert len(expected) == 4
    files = {file.name: file for file in there.files()}
    for name, ours in expected.items():
        files[name].download(root=str(tmp_path / "back")).close()
        assert (tmp_path / "back" / name).read_bytes() == ours.read_bytes()


def test_the_end_is_sent_when_it_has_come_and_again_when_it_changes(server: WandbServer, tmp_path: Path) -> None:
    run = pictured(tmp_path, ended=False)
    assert sync([run], print) == (12, 2, 0)
    steps = [row["_step"] for row in server.runs["exp-abcabcabcabc-0"].rows]
    assert steps[-1] == 402
    end(run)
    assert sync([run], print) == (0, 1, 0)
    assert sync([run], print) == (0, 0, 0)
    paint(run.pictures / "curves.png", 99)
    run.write_status("finished")
    assert sync([run], print) == (0, 1, 0)
    assert [row["_step"] for row in server.runs["exp-abcabcabcabc-0"].rows] == [*steps, 403, 404]


def test_a_damaged_picture_is_left_out(server: WandbServer, tmp_path: Path) -> None:
    run = pictured(tmp_path)
    warps_file(run, 0, 100).write_bytes(warps_file(run, 0, 100).read_bytes()[:40])
    (run.pictures / "curves.png").write_bytes(b"no picture")
    assert sync([run], print) == (12, 2, 0)
    rows = server.runs["exp-abcabcabcabc-0"].rows
    assert [row["global_step"] for row in rows if "warps" in row] == [200]
    assert "pictures/curves" not in rows[-1]
    assert "pictures/warp" in rows[-1]


def test_weights_that_are_refused_cost_only_themselves(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said, tried = pictured(tmp_path, wandb="online", wandb_artifact=True), [], []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise ValueError("no room")

    monkeypatch.setattr(sinks.SeedRun, "_send_weights", refuse)
    sink = WandbSink(run, config(wandb="online", wandb_artifact=True), "abcabcabcabc", [0, 1], print)
    with pytest.raises(ValueError, match="no room"):
        sink.close([result(0), result(1)])
    assert len(tried) == 1, "a server that does not answer is not waited for again"
    assert [server.runs[f"exp-abcabcabcabc-{seed}"].exit_code for seed in (0, 1)] == [0, 0]
    assert json.loads(server.runs["exp-abcabcabcabc-1"].summary)["test_acc"] == 0.9
    monkeypatch.setattr("stn.tracking.log.warn", said.append)
    log_end(config(wandb="online", wandb_artifact=True), "abcabcabcabc", run)
    assert said == [
        f"the pictures of the end are not shown: ValueError: no room; python -m launch wandb-sync {run.path} "
        "sends them to W&B"
    ]
    monkeypatch.undo()


def test_entity_group_tags_and_notes(server: WandbServer, tmp_path: Path) -> None:
    names = {"wandb_entity": "team", "wandb_group": "my group", "wandb_tags": ("a", "b c"), "wandb_notes": "x\ny"}
    run = pictured(tmp_path, (0,), **names)
    sync([run], print)
    uploaded = server.runs.pop("exp-abcabcabcabc-0")
    live(RunDir(tmp_path / "other"), (0,), **names)
    for kept in (uploaded, server.runs["exp-abcabcabcabc-0"]):
        fields = kept.fields
        assert (fields["entity"], fields["groupName"], fields["notes"]) == ("team", "my group", "x\ny")
        assert fields["tags"] == ["stn_cx", "mnist", "exp", "a", "b c"]
    assert json.loads((run.path / "wandb-sync.json").read_text())["place"] == f"{server.url}/team/stn"


def test_offline_the_end_is_left_to_the_upload(server: WandbServer, tmp_path: Path) -> None:
    """A second file of the same run would overwrite the first one's rows where W&B's own sync sends both."""
    run = pictured(tmp_path, wandb="offline")
    log_end(config(wandb="offline"), "abcabcabcabc", run)
    assert (server.runs, list(run.path.glob("wandb/*"))) == ({}, [])
    sync([run], print)
    assert "seeds" in server.runs["exp-abcabcabcabc-0"].rows[-1]
