"""The real W&B client against a loopback server: what arrives, once, whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import wandb

from launch.wandb.client import RunRecord
from launch.wandb.sync import sync, uploadable_runs
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Log
from stn.config.yaml_files import dump_yaml
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_rows
from stn.tracking.log import WandbSink
from tests.support.paths import ROOT
from tests.support.trainer import command, environment, only_run, train
from tests.support.wandb_server import WandbServer


def config(**log_fields) -> Config:
    return resolve(Config(arch=Arch(name="stn_cx"), log=Log(name="exp", **log_fields)))


def rows_of(seed: int, last: int, first: int = 0) -> list[Row]:
    """Rows as a training logs them: every 50 steps, with an evaluation, transforms and poses every 100."""
    rows: list[Row] = []
    for step in range(50, last + 1, 50):
        at = {"seed": seed, "step": step, "epoch": step / 100}
        rows.append({"kind": "train", **at, "loss": 1.0 / step + seed, "acc": 0.5, "lr": 0.1, "images_per_s": 1e4})
        if step % 100 == 0:
            rows.append({"kind": "eval", **at, "test_acc": 0.9, "test_loss": 0.2, "test_count": 300})
            rows.append({"kind": "warp", **at, "theta": [[1.0, 0.0]]})
            rows.append({"kind": "pose", **at, "degrees": {"applied": [1.0], "predicted": [0.5]}})
    return [row for row in rows if row["step"] > first]


def result_of(seed: int, status: str = "finished") -> Row:
    return {"seed": seed, "status": status, "test_acc": 0.9, "reason": None, "per_class_acc": [0.9], "sig": "abc"}


def record(
    tmp_path: Path, last: dict[int, int], done: tuple[int, ...] = (), block: str = "0-7", **log_fields
) -> RunDir:
    """A run directory whose seeds have come to these steps."""
    run = RunDir(tmp_path / "runs" / "exp" / "abc" / block)
    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text(dump_yaml(config(**log_fields)))
    run.metrics.write_text("")
    for seed, step in last.items():
        run.add_metrics(rows_of(seed, step))
    for seed in done:
        run.add_results([result_of(seed)])
    return run


def history(server: WandbServer, seed: int) -> list[tuple[int, str]]:
    """Step and kind of each row that the server has of a seed."""
    rows = server.runs[f"exp-abc-{seed}"].rows
    return [(row["global_step"], "eval" if "test_acc" in row else "train") for row in rows]


def whole(last: int) -> list[tuple[int, str]]:
    return [(row["step"], row["kind"]) for row in rows_of(0, last) if row["kind"] in ("train", "eval")]


def requests(server: WandbServer) -> set[str]:
    """What was asked since the last time: questions, and what a run takes that is opened."""
    seen = {operation for operation, _ in server.requests} & {"Runs", "UpsertBucket", "file_stream"}
    server.requests.clear()
    return seen


def test_everything_arrives_once(server: WandbServer, tmp_path: Path) -> None:
    run, said = record(tmp_path, {0: 200, 1: 200, 2: 100}, done=(0, 1)), []
    run.forget({1})
    run.add_results([result_of(1, "failed")])
    assert sync([run], said.append) == (6 + 6 + 3, 3, 0)
    assert [history(server, seed) for seed in range(3)] == [whole(200), whole(200), whole(100)]
    codes = [server.runs[f"exp-abc-{seed}"].exit_code for seed in range(3)]
    assert codes == [0, 1, None], "an unfinished seed does not end"
    first = server.runs["exp-abc-0"]
    assert first.fields["groupName"] == "exp-stn_cx-mnist-abc"
    assert (first.config["arch"], first.config["seed"], first.config["config"]["optim"]["lr"]) == ("stn_cx", 0, 0.001)
    summary = json.loads(first.summary)
    assert (summary["status"], summary["test_acc"], summary["sig"]) == ("finished", 0.9, "abc")
    assert "per_class_acc" not in summary

    requests(server)
    assert sync([run], said.append) == (0, 0, 0)
    assert requests(server) == set(), "all is marked"
    (run.path / "wandb-sync.json").unlink()
    assert sync([run], said.append) == (0, 0, 0)
    assert requests(server) == {"Runs"}, "the server knows, and no run is opened"

    server.runs["exp-abc-0"].fields["tags"] = ["odd"]  # by a person
    run.add_metrics(rows_of(2, 200, first=100))
    run.add_results([result_of(2)])
    server.runs["exp-abc-2"].fields["tags"] = ["odd"]
    assert sync([run], said.append) == (3, 1, 0)
    assert {name for operation, name in server.requests if operation == "UpsertBucket"} == {"exp-abc-2"}
    assert history(server, 2) == whole(200)
    assert server.runs["exp-abc-2"].exit_code == 0
    assert server.runs["exp-abc-2"].fields["tags"] == ["odd", "stn_cx", "mnist", "exp"]
    assert said == []


def test_wrong_values_in_a_run_directory_are_no_traceback(tmp_path: Path) -> None:
    """Of a row, it is left out; of the marker, it is asked again; of the configuration, that is said."""
    run = record(tmp_path, {0: 100})
    rows = run.metrics.read_text()
    for odd in (None, [1], {"a": 1}, "x"):
        run.metrics.write_text(rows + json.dumps({"kind": "train", "seed": odd, "step": 1, "epoch": 1.0}) + "\n")
        with run.metrics.open("a") as file:
            file.write(json.dumps({"kind": "eval", "seed": 0, "step": odd, "epoch": odd}) + "\n")
        (run.path / "wandb-sync.json").write_text(json.dumps({"place": "a/stn", "stamp": odd, "done": odd}))
        (seed,) = RunRecord(run, "a", set()).seeds
        assert (len(seed.rows), seed.run.done) == (3, odd if isinstance(odd, dict) else {})
    for text, message in (("log: {name: null}", "has no log.name"), ("log: {name: ../x}", "cannot be a folder's name")):
        run.config.write_text(text)
        with pytest.raises(ValueError, match=message):
            RunRecord(run, "a", set())


def test_the_upload_says_what_the_live_sink_says(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, {0: 200}, done=(0,), wandb="online")
    live = WandbSink(RunDir(tmp_path / "live"), config(wandb="online"), "abc", [0], print)
    for row in rows_of(0, 200):
        live.write([row])
    live.close([result_of(0)])
    theirs = server.runs.pop("exp-abc-0")
    sync([run], print)
    ours = server.runs["exp-abc-0"]

    def lasting(row: Row) -> Row:
        return {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime", "_wandb")}

    assert [lasting(row) for row in ours.rows] == [lasting(row) for row in theirs.rows]
    assert lasting(json.loads(ours.summary)) == lasting(json.loads(theirs.summary))
    assert lasting(ours.config) == lasting(theirs.config)
    assert ours.config["_wandb"]["m"] == theirs.config["_wandb"]["m"], "the metrics' axis"
    fields = ("project", "groupName", "name", "displayName", "tags")
    assert [ours.fields.get(field) for field in fields] == [theirs.fields.get(field) for field in fields]


def test_a_seed_whose_rows_are_there_still_has_to_end(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, {0: 200})
    assert sync([run], print) == (6, 1, 0)
    run.add_results([result_of(0, "failed")])
    assert sync([run], print) == (0, 1, 0)
    assert (history(server, 0), server.runs["exp-abc-0"].exit_code) == (whole(200), 1)
    run.forget({0})
    run.add_results([result_of(0)])  # it was tried again
    assert sync([run], print) == (0, 1, 0)
    assert server.runs["exp-abc-0"].exit_code == 0


def test_live_and_upload_continue_each_other(server: WandbServer, tmp_path: Path) -> None:
    """Live to step 200; a kill loses the rows to 300, live again to 350; a kill, uploaded from a checkpoint at 300."""
    run, fields = record(tmp_path, {0: 200}), config(wandb="online")
    first = WandbSink(run, fields, "abc", [0], print)
    first.close([])
    assert history(server, 0) == whole(200)

    run.metrics.write_text("")
    run.add_metrics(rows_of(0, 300))
    second = WandbSink(run, fields, "abc", [0], print)
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


def test_interrupted_in_the_middle(server: WandbServer, tmp_path: Path) -> None:
    run, said = record(tmp_path, dict.fromkeys(range(4), 200), done=(0, 1, 2, 3)), []
    server.refuse = lambda operation, name: 500 if operation == "file_stream" and name[-1] in "23" else None
    rows, seeds, problems = sync([run], said.append)
    assert (rows, seeds, problems) == (12, 2, 2)
    assert [line.partition("is left out")[0][-7:] for line in said] == ["seed 2 ", "seed 3 "]
    server.refuse = lambda operation, name: None
    requests(server)
    assert sync([run], said.append) == (12, 2, 0)
    assert {name for operation, name in server.requests if operation == "UpsertBucket"} == {"exp-abc-2", "exp-abc-3"}
    assert [history(server, seed) for seed in range(4)] == [whole(200)] * 4


def test_an_answer_that_is_lost_is_no_second_row(server: WandbServer, tmp_path: Path) -> None:
    run, lost = record(tmp_path, {0: 200}, done=(0,)), iter([502])
    server.after = lambda name: next(lost, 200)
    assert sync([run], print) == (6, 1, 0)
    assert history(server, 0) == whole(200)


def test_nothing_is_marked_on_the_clients_word(server: WandbServer, tmp_path: Path) -> None:
    """A file stream that is refused for good does not fail the client's finish."""
    run, said = record(tmp_path, {0: 200, 1: 200}, done=(0,)), []
    server.refuse = lambda operation, name: 403 if operation == "file_stream" else None
    assert sync([run], said.append).problems == 1
    assert "does not say that it has all" in said[0]
    assert not (run.path / "wandb-sync.json").exists()
    server.refuse = lambda operation, name: None
    assert sync([run], said.append) == (12, 2, 0)


def test_one_seed_that_the_server_refuses_does_not_hold_up_the_others(server: WandbServer, tmp_path: Path) -> None:
    run, said = record(tmp_path, {0: 100, 1: 100}, done=(0, 1)), []
    broken = record(tmp_path, {5: 100}, block="5")
    broken.config.write_text("nonsense: 1")
    server.refuse = lambda operation, name: 403 if (operation, name) == ("UpsertBucket", "exp-abc-0") else None
    assert sync([broken, run], said.append) == (3, 1, 2)
    assert "unknown key 'nonsense'" in said[0]
    assert "seed 0 is left out" in said[1]
    server.refuse = lambda operation, name: None
    wandb.teardown()  # as in a new process: the client does not open a run twice
    assert sync([run], said.append) == (3, 1, 0)


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
    assert sync(runs, print) == (6 + 3, 2, 0)
    assert (history(server, 0), history(server, 1)) == (whole(200), whole(100))
    assert set(server.runs) == {"exp-abc-0", "exp-abc-1"}


def test_another_server_is_not_believed_to_have_it(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, {0: 100}, done=(0,))
    assert sync([run], print) == (3, 1, 0)
    marker = run.path / "wandb-sync.json"
    marker.write_text(marker.read_text().replace("/me/stn", "/other/stn"))
    requests(server)
    assert sync([run], print) == (0, 0, 0)
    assert requests(server) == {"Runs"}
    for damaged in ("torn", "[]", "5"):
        marker.write_text(damaged)
        assert sync([run], print) == (0, 0, 0)


def test_the_server_goes_away(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, dict.fromkeys(range(3), 100), done=(0, 1, 2))
    gone: list[int] = []

    def refuse(operation: str, name: str) -> int | None:
        gone.extend([1] if operation == "file_stream" else [])
        return 500 if gone else None

    server.refuse = refuse
    with pytest.raises(OSError, match="W&B does not answer; nothing is lost"):
        sync([run], print)
    server.refuse = lambda operation, name: None
    assert sync([run], print).problems == 0
    assert [history(server, seed) for seed in range(3)] == [whole(100)] * 3


def launch(*paths: Path, **env: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "launch", "wandb-sync", *map(str, paths)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment(**env), timeout=240)


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


@pytest.mark.slow
def test_two_people_at_once(tmp_path: Path) -> None:
    record(tmp_path, dict.fromkeys(range(8), 400), done=tuple(range(8)))
    homes = [tmp_path / "one", tmp_path / "two"]
    with WandbServer() as server:
        words = [sys.executable, "-m", "launch", "wandb-sync", str(tmp_path / "runs")]
        both = []
        for home in homes:
            home.mkdir()
            both.append(subprocess.Popen(words, cwd=ROOT, env=environment(**server.environment(home))))
        assert [process.wait(240) for process in both] == [0, 0]
    assert [history(server, seed) for seed in range(8)] == [whole(400)] * 8


TINY = ("--limit-train", 1280, "--limit-test", 300, "--log.no-pictures", "--name", "exp", "--seeds", "0,1")
FEW = ("--steps", 60, "--log.every", "5 steps", "--eval.every", "20 steps", "--checkpoint.every", "10 steps")


def same_as_the_record(server: WandbServer, runs: Path) -> bool:
    run = only_run(runs)
    for seed in (0, 1):
        ours = [(r["step"], r["kind"]) for r in run.rows() if r["seed"] == seed and r["kind"] != "warp"]
        kept = server.runs[f"exp-{run.path.parent.name}-{seed}"]
        theirs = [(r["global_step"], "eval" if "test_acc" in r else "train") for r in kept.rows]
        if theirs != ours or kept.exit_code != 0:
            return False
    return True


@pytest.mark.slow
def test_offline_training_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with WandbServer() as server:
        env = server.environment(tmp_path / "home")
        done = train(*TINY, *FEW, "--log.wandb", "offline", runs=tmp_path / "runs", **env)
        assert done.returncode == 0, done.stderr
        assert server.runs == {}
        assert launch(tmp_path / "runs", **env).returncode == 0
        assert same_as_the_record(server, tmp_path / "runs")


@pytest.mark.slow
def test_a_killed_seed_continues_its_run(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    long = ("--steps", 2000, "--log.every", "5 steps", "--eval.every", "20 steps", "--checkpoint.every", "10 steps")
    with WandbServer() as server:
        env = environment(**server.environment(tmp_path / "home"))
        words = command(*TINY, *long, "--log.wandb", "online", runs=tmp_path / "runs")
        victim = subprocess.Popen(words, env=env, start_new_session=True)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and sum(len(kept.lines) for kept in server.runs.values()) < 20:
            time.sleep(0.1)
        workers = psutil.Process(victim.pid).children(recursive=True)
        os.killpg(victim.pid, signal.SIGKILL)
        for worker in workers:
            if worker.is_running():
                worker.kill()
        victim.wait()
        before = {name: len(kept.lines) for name, kept in server.runs.items()}
        assert sum(before.values()) >= 20
        assert all(kept.exit_code is None for kept in server.runs.values())

        run = RunDir(only_run(tmp_path / "runs").path)
        enough = max(row["step"] for row in read_rows(run.metrics)) + 20
        again = subprocess.Popen(words, env=env)
        while time.monotonic() < deadline + 180 and max(row["step"] for row in read_rows(run.metrics)) < enough:
            time.sleep(0.1)
        run.stop.touch()
        assert again.wait(120) == 0
        assert same_as_the_record(server, tmp_path / "runs")
