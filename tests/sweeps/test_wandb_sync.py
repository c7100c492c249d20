"""Uploads by the real W&B client to a loopback server: what arrives, and that it arrives once."""

import json
import shutil
from pathlib import Path

import pytest

from launch.wandb.client import RunUpload
from launch.wandb.sync import sync, uploadable_runs
from stn.runs.directory import Row, RunDir
from stn.tracking.log import WandbSink
from tests.support.wandb_runs import config, history, launch, record, requests, result_of, rows_of, whole
from tests.support.wandb_server import WandbServer


def test_everything_arrives_once(server: WandbServer, tmp_path: Path) -> None:
    run, said = record(tmp_path, {0: 200, 1: 200, 2: 100}, done=(0, 1)), []
    run.forget({1})
    run.add_results([result_of(1, "failed")])
    assert sync([run], said.append) == (6 + 6 + 3, 3, 0)
    assert [history(server, seed) for seed in range(3)] == [whole(200), whole(200), whole(100)]
    codes = [server.runs[f"exp-abcabcabcabc-{seed}"].exit_code for seed in range(3)]
    assert codes == [0, 1, None], "an unfinished seed does not end"
    first = server.runs["exp-abcabcabcabc-0"]
    assert first.fields["groupName"] == "exp-stn_cx-mnist-abcabc"
    assert (first.config["arch"], first.config["seed"], first.config["config"]["optim"]["lr"]) == ("stn_cx", 0, 0.001)
    summary = json.loads(first.summary)
    assert (summary["status"], summary["test_acc"], summary["sig"]) == ("finished", 0.9, "abcabcabcabc")
    assert "per_class_acc" not in summary

    requests(server)
    assert sync([run], said.append) == (0, 0, 0)
    assert requests(server) == set(), "all is marked"
    (run.path / "wandb-sync.json").unlink()
    assert sync([run], said.append) == (0, 0, 0)
    assert requests(server) == {"Runs"}, "the server knows, and no run is opened"

    server.runs["exp-abcabcabcabc-0"].fields["tags"] = ["odd"]  # by a person
    run.add_metrics(rows_of(2, 200, first=100))
    run.add_results([result_of(2)])
    server.runs["exp-abcabcabcabc-2"].fields["tags"] = ["odd"]
    assert sync([run], said.append) == (3, 1, 0)
    assert {name for operation, name in server.requests if operation == "UpsertBucket"} == {"exp-abcabcabcabc-2"}
    assert history(server, 2) == whole(200)
    assert server.runs["exp-abcabcabcabc-2"].exit_code == 0
    assert server.runs["exp-abcabcabcabc-2"].fields["tags"] == ["odd", "stn_cx", "mnist", "exp"]
    assert said == []


def test_wrong_values_in_a_run_directory_cause_no_traceback(tmp_path: Path) -> None:
    """A wrong row is skipped, a wrong marker makes it ask the server again, a wrong configuration is reported."""
    run = record(tmp_path, {0: 100})
    rows = run.metrics.read_text()
    for odd in (None, [1], {"a": 1}, "x"):
        run.metrics.write_text(rows + json.dumps({"kind": "train", "seed": odd, "step": 1, "epoch": 1.0}) + "\n")
        with run.metrics.open("a") as file:
            file.write(json.dumps({"kind": "eval", "seed": 0, "step": odd, "epoch": odd}) + "\n")
        (run.path / "wandb-sync.json").write_text(json.dumps({"place": "a/stn", "stamp": odd, "done": odd}))
        (seed,) = RunUpload(run, "a", set()).seeds
        assert (len(seed.rows), seed.run.done) == (3, odd if isinstance(odd, dict) else {})
    for text, message in (("log: {name: null}", "has no log.name"), ("log: {name: ../x}", "cannot be a folder's name")):
        run.config.write_text(text)
        with pytest.raises(ValueError, match=message):
            RunUpload(run, "a", set())


def test_the_upload_says_what_the_live_sink_says(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, {0: 200}, done=(0,), wandb="online")
    live = WandbSink(RunDir(tmp_path / "live"), config(wandb="online"), "abcabcabcabc", [0], print)
    for row in rows_of(0, 200):
        live.write([row])
    live.close([result_of(0)])
    theirs = server.runs.pop("exp-abcabcabcabc-0")
    sync([run], print)
    ours = server.runs["exp-abcabcabcabc-0"]

    def lasting(row: Row) -> Row:
        return {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime", "_wandb")}

    assert [lasting(row) for row in ours.rows] == [lasting(row) for row in theirs.rows]
    assert lasting(json.loads(ours.summary)) == lasting(json.loads(theirs.summary))
    assert lasting(ours.config) == lasting(theirs.config)
    assert ours.config["_wandb"]["m"] == theirs.config["_wandb"]["m"], "the metrics' axis"
    fields = ("project", "groupName", "name", "displayName", "tags")
    assert [ours.fields.get(field) for field in fields] == [theirs.fields.get(field) for field in fields]


def test_a_seed_whose_rows_have_arrived_still_has_to_be_finished(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, {0: 200})
    assert sync([run], print) == (6, 1, 0)
    run.add_results([result_of(0, "failed")])
    assert sync([run], print) == (0, 1, 0)
    assert (history(server, 0), server.runs["exp-abcabcabcabc-0"].exit_code) == (whole(200), 1)
    run.forget({0})
    run.add_results([result_of(0)])  # it was tried again
    assert sync([run], print) == (0, 1, 0)
    assert server.runs["exp-abcabcabcabc-0"].exit_code == 0


def test_live_and_upload_continue_each_other(server: WandbServer, tmp_path: Path) -> None:
    """Live to step 200; a kill loses the rows to 300, live again to 350; a kill, uploaded from a checkpoint at 300."""
    run, fields = record(tmp_path, {0: 200}), config(wandb="online")
    first = WandbSink(run, fields, "abcabcabcabc", [0], print)
    first.close([])
    assert history(server, 0) == whole(200)

    run.metrics.write_text("")
    run.add_metrics(rows_of(0, 300))
    second = WandbSink(run, fields, "abcabcabcabc", [0], print)
    second.write(rows_of(0, 350, first=300))
    second.close([])
    assert history(server, 0) == whole(350), "what the server had lost comes from the record"

    run.metrics.write_text("")
    run.add_metrics(rows_of(0, 300))
    assert sync([run], print) == (0, 0, 0), "the server is ahead of a record that was cut back"
    run.add_metrics(rows_of(0, 500, first=300))
    run.add_results([result_of(0)])
    assert sync([run], print) == (5, 1, 0)
    assert history(server, 0) == whole(500)


def test_uploads_are_marked_only_when_the_server_has_them(server: WandbServer, tmp_path: Path) -> None:
    """A file stream that is refused for good does not fail the client's finish."""
    run, said = record(tmp_path, {0: 200, 1: 200}, done=(0,)), []
    server.refuse = lambda operation, name: 403 if operation == "file_stream" else None
    assert sync([run], said.append).problems == 1
    assert "does not say that it has all" in said[0]
    assert not (run.path / "wandb-sync.json").exists()
    server.refuse = lambda operation, name: None
    assert sync([run], said.append) == (12, 2, 0)


def test_what_is_not_sent(server: WandbServer, tmp_path: Path) -> None:
    record(tmp_path, {7: 100}, block="7", wandb="disabled")
    begun = record(tmp_path, {0: 100, 1: 100}, done=(1,), block="0-1")
    again = record(tmp_path, {0: 200}, done=(0,), block="0")
    own_files = begun.path / "wandb" / "offline-run-1" / "files"
    own_files.mkdir(parents=True)
    shutil.copy(begun.config, own_files)
    shutil.copy(begun.metrics, own_files)
    runs = uploadable_runs([str(tmp_path / "runs"), str(again.path)])
    assert [run.path.name for run in runs] == ["0", "0-1", "7"]
    said: list[str] = []
    assert sync(runs, said.append) == (6 + 3, 2, 0)
    assert said == ["1 run directories are not sent: their config.yaml says log.wandb: disabled"]
    assert (history(server, 0), history(server, 1)) == (whole(200), whole(100))
    assert set(server.runs) == {"exp-abcabcabcabc-0", "exp-abcabcabcabc-1"}


def test_experiments_that_were_moved_side_by_side_are_not_mixed(server: WandbServer, tmp_path: Path) -> None:
    kept = []
    for name, last, done in (("lr01", 200, (0,)), ("lr02", 100, ())):
        run = record(tmp_path, {0: last}, done=done)
        if not done:
            run.env.write_text('{"sig": "0123456789ab"}')
        (tmp_path / "keep").mkdir(exist_ok=True)
        kept.append(RunDir(run.path.rename(tmp_path / "keep" / name)))
    assert sync(kept, print) == (6 + 3, 2, 0)
    assert set(server.runs) == {"exp-abcabcabcabc-0", "exp-0123456789ab-0"}
    assert [server.runs[f"exp-{sig}-0"].exit_code for sig in ("abcabcabcabc", "0123456789ab")] == [0, None]
    assert history(server, 0) == whole(200)


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    run = record(tmp_path, {0: 100}, done=(0,))
    (tmp_path / "home").mkdir()
    with WandbServer() as server:
        env = server.environment(tmp_path / "home")
        done = launch(tmp_path / "runs", **env, WANDB_MODE="offline")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "W&B: 3 rows of 1 seeds sent, from 1 run directories\n"
        assert history(server, 0) == whole(100)
        no_key = launch(run.path, **env | {"WANDB_API_KEY": ""})
    assert (no_key.returncode, no_key.stdout) == (1, "")
    assert no_key.stderr == "error: not logged in to W&B: run `wandb login` on this machine first\n"
    down = launch(run.path, **env)
    assert (down.returncode, down.stdout) == (1, "")
    assert down.stderr.startswith("error: W&B does not answer; nothing is lost, run the same command again: ")
    assert len(down.stderr.splitlines()) == 1
    none = launch(tmp_path / "home", **env)
    assert none.returncode == 2
    assert "no run directory in" in none.stderr
