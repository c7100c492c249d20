"""Uploads to W&B that are interrupted, refused or repeated: nothing is lost, nothing doubled."""

import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from launch.wandb.sync import sync
from stn.runs.directory import RunDir
from stn.tracking.log import WandbSink
from tests.support.paths import ROOT
from tests.support.trainer import environment
from tests.support.wandb_runs import config, history, record, requests, whole
from tests.support.wandb_server import WandbServer


@pytest.mark.slow
def test_interrupted_in_the_middle(server: WandbServer, tmp_path: Path) -> None:
    run, said = record(tmp_path, dict.fromkeys(range(4), 200), done=(0, 1, 2, 3)), []
    server.refuse = lambda operation, name: 500 if operation == "file_stream" and name[-1] in "23" else None
    rows, seeds, problems = sync([run], said.append)
    assert (rows, seeds, problems) == (12, 2, 2)
    assert [line.partition("is left out")[0][-7:] for line in said] == ["seed 2 ", "seed 3 "]
    server.refuse = lambda operation, name: None
    requests(server)
    assert sync([run], said.append) == (12, 2, 0)
    assert {name for operation, name in server.requests if operation == "UpsertBucket"} == {
        "exp-abcabcabcabc-2",
        "exp-abcabcabcabc-3",
    }
    assert [history(server, seed) for seed in range(4)] == [whole(200)] * 4


def test_an_answer_that_is_lost_is_no_second_row(server: WandbServer, tmp_path: Path) -> None:
    run, lost = record(tmp_path, {0: 200}, done=(0,)), iter([502])
    server.after = lambda name: next(lost, 200)
    assert sync([run], print) == (6, 1, 0)
    assert history(server, 0) == whole(200)


def test_one_seed_that_the_server_refuses_does_not_hold_up_the_others(server: WandbServer, tmp_path: Path) -> None:
    run, said = record(tmp_path, {0: 100, 1: 100}, done=(0, 1)), []
    broken = record(tmp_path, {5: 100}, block="5")
    broken.config.write_text("nonsense: 1")
    server.refuse = lambda operation, name: 403 if (operation, name) == ("UpsertBucket", "exp-abcabcabcabc-0") else None
    assert sync([broken, run], said.append) == (3, 1, 2)
    assert "unknown key 'nonsense'" in said[0]
    assert "seed 0 is left out" in said[1]
    server.refuse = lambda operation, name: None
    wandb.teardown()  # as in a new process: the client does not open a run twice
    assert sync([run], said.append) == (3, 1, 0)


@pytest.mark.parametrize("file", ["results.jsonl", "metrics.jsonl"])
def test_a_run_directory_that_cannot_be_read_does_not_hold_up_the_others(
    file: str, server: WandbServer, tmp_path: Path
) -> None:
    broken, run, said = record(tmp_path, {5: 100}, block="5"), record(tmp_path, {6: 100}, done=(6,), block="6"), []
    (broken.path / file).unlink(missing_ok=True)
    (broken.path / file).mkdir()
    assert sync([broken, run], said.append) == (3, 1, 1)
    assert said[0].startswith(f"{broken.path} is left out: ")
    assert history(server, 6) == whole(100)


def test_rows_are_sent_again_to_another_server(server: WandbServer, tmp_path: Path) -> None:
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


def test_another_place_is_named_at_the_upload(server: WandbServer, tmp_path: Path) -> None:
    run = record(tmp_path, {0: 100}, done=(0,), wandb_project="wrong")
    assert sync([run], print) == (3, 1, 0)
    assert server.runs["exp-abcabcabcabc-0"].fields["project"] == "wrong"
    server.runs.clear()
    assert sync([run], print, wandb_project="right", wandb_entity="team") == (3, 1, 0)
    fields = server.runs["exp-abcabcabcabc-0"].fields
    assert (fields["project"], fields["entity"]) == ("right", "team")
    assert "wandb_project: wrong" in run.config.read_text()


def test_another_training_of_the_same_seed_is_said(server: WandbServer, tmp_path: Path) -> None:
    """W&B takes no row before the last that it has: the old curve stays."""
    assert sync([record(tmp_path, {0: 200}, done=(0,))], print) == (6, 1, 0)
    said: list[str] = []
    for folder in ("other", "runs/exp/abcabcabcabc/0-7"):
        WandbSink(RunDir(tmp_path / folder), config(wandb="online"), "abcabcabcabc", [0, 1], said.append).close([])
    assert [text.split(", and takes")[0] for text in said] == ["W&B has rows up to step 200 as exp-abcabcabcabc-0"]
