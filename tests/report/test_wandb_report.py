"""The comparison on W&B: the real client against a loopback server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import wandb

from launch.report.analysis.cells import Cell
from launch.report.output.wandb_report import MEMORY, SPEC
from launch.report.output.wandb_spec import report_title
from stn.tracking.wandb_run import run_id
from tests.support.paths import ROOT
from tests.support.sweeps import launch
from tests.support.trainer import environment
from tests.support.wandb_kept import Kept
from tests.support.wandb_report import blocks, conditions, grids, publish, renamed, spec_on
from tests.support.wandb_server import WandbServer

EXTRA = "--wandb needs one more package: pip install 'wandb-workspaces>=0.4.13,<0.5'"


def test_publishing_again_updates_the_same_report(server: WandbServer, cells: list[Cell], tmp_path: Path) -> None:
    server.runs[run_id(cells[0].config, cells[0].sig, 0)] = Kept()
    first, second = publish(cells, tmp_path).splitlines()
    assert first == f"W&B report created: {server.url}/me/stn/reports/Comparison-two--Vmlldzo0"
    absent = "stn_slx (mnist), cnn (mnist_r), stn_slx (mnist_r)"
    assert second == f"W&B lacks the runs of {absent}; upload: python -m launch wandb-sync"
    ((known, view),) = server.views.items()
    assert (view["displayName"], view["entityName"], view["type"]) == ("Comparison: two", "me", "runs")

    cells[0].rows[0]["test_acc"] = 0.1
    assert publish(cells, tmp_path).startswith("W&B report updated: ")
    assert list(server.views) == [known]
    assert server.views[known]["name"] == view["name"]
    assert "| 10.00 |" in server.views[known]["spec"], "what has changed is in it"

    (tmp_path / MEMORY).unlink()
    assert publish(cells, tmp_path).startswith("W&B report updated: ")
    assert list(server.views) == [known], "found by its title"

    server.views[known]["displayName"] = "Ours"  # by a person
    publish(cells, tmp_path)
    assert list(server.views) == [known], "found by its id"
    assert server.views[known]["displayName"] == "Comparison: two"

    server.views["other"] = server.views.pop(known) | {"id": "other", "displayName": "Other"}
    assert publish(cells, tmp_path).startswith("W&B report created: ")
    assert len(server.views) == 2, "it was deleted there; what is not ours is left alone"
    assert server.views["other"]["displayName"] == "Other"


def test_each_project_has_a_run_set(server: WandbServer, cells: list[Cell], tmp_path: Path) -> None:
    renamed(cells[:1], "log", wandb_project="apart")
    message = publish(cells, tmp_path)
    assert message.startswith(
        "no W&B report: W&B has no project me/apart; upload its runs first: python -m launch wandb-sync; "
    )
    assert (server.views, (tmp_path / SPEC).exists()) == ({}, True)
    server.projects.add("apart")
    publish(cells, tmp_path)
    assert not (tmp_path / SPEC).exists(), "it has been published"
    ((apart, stn), _), _ = grids(spec_on(server))
    assert (apart["name"], apart["project"]["id"]) == ("mnist, apart", "internal-apart")
    assert (stn["name"], stn["project"]["id"]) == ("mnist, stn", "internal-stn")
    assert [len(conditions(run_set)["run:group"]) for run_set in (apart, stn)] == [1, 1]


def picture(path: Path, shade: float) -> None:
    path.parent.mkdir(exist_ok=True)
    matplotlib.image.imsave(path, np.full((4, 4), shade), vmin=0, vmax=1)


def test_pictures_are_sent_once_and_shown(server: WandbServer, cells: list[Cell], tmp_path: Path) -> None:
    picture(file := tmp_path / "figures" / "mnist-pairs.png", 0.2)
    publish(cells, tmp_path)
    *_, ((runs,), (panel,)) = grids(spec_on(server))
    ((known, kept),) = server.runs.items()
    assert (panel["viewType"], panel["config"]["mediaKeys"]) == ("Media Browser", ["figures/mnist-pairs"])
    assert (conditions(runs), kept.fields["jobType"]) == ({"run:name": known}, "report")
    sent = kept.rows[-1]["figures/mnist-pairs"]
    assert (sent["_type"], sent["path"] in {path.partition("/")[2] for path in server.files.contents}) == (
        "image-file",
        True,
    )
    publish(cells, tmp_path)
    assert len(kept.rows) == 1
    picture(file, 0.7)
    publish(cells, tmp_path)
    assert len(kept.rows) == 2
    del server.runs[known]
    publish(cells, tmp_path)
    assert list(server.runs) == [known], "it had been deleted there"
    file.write_bytes(b"torn")
    assert re.fullmatch(r"no W&B report: .*mnist-pairs.png.*", publish(cells, tmp_path))


NAME = 'it\'s "<script>alert(1)</script>" = 日本 | ö'


def test_hostile_names_are_escaped(server: WandbServer, cells: list[Cell], tmp_path: Path) -> None:
    renamed(cells, "log", name=NAME)
    for cell in cells:
        renamed([cell], "arch", name=NAME + cell.arch)
        renamed([cell], "data", name=NAME + cell.dataset)
        cell.setting = NAME
        cell.runs[0].env.write_text(json.dumps({"commit": NAME + cell.sig}))
    url = publish(cells, tmp_path).splitlines()[0].partition(": ")[2]
    assert url.isascii()
    assert not set(url) & set("<>'\" |=")
    assert server.views["Vmlldzo0=="]["displayName"] == f"Comparison: {NAME}"
    text = "".join(block["content"] for block in blocks(spec_on(server), "markdown-block"))
    assert ("&lt;script" in text, "<script" in text) == (True, False)
    dataset_names = [conditions(runs)["config:dataset.value"] for (runs,), _ in grids(spec_on(server))]
    assert dataset_names == [NAME + "mnist", NAME + "mnist_r"]
    publish(renamed(cells, "log", name=NAME * 10), tmp_path)
    (view,) = server.views.values()
    assert len(view["displayName"]) == 128
    assert view["displayName"] != report_title(renamed(cells, "log", name=NAME * 11))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WANDB_API_KEY", "", "run `wandb login`"),
        ("WANDB_MODE", "offline", "WANDB_MODE is offline"),
        ("WANDB_BASE_URL", "http://127.0.0.1:9", "W&B does not answer"),
    ],
)
def test_without_w_and_b_the_spec_is_kept(name, value, says, server, cells, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(name, value)
    wandb.teardown()
    end = f"; its content is in {tmp_path / SPEC}, rerun this command to publish it"
    assert re.fullmatch(f"no W&B report: .*{says}.*{re.escape(end)}", publish(cells, tmp_path))
    kept = json.loads((tmp_path / SPEC).read_text())
    assert (kept["title"], kept["project"]) == ("Comparison: two", "stn")
    assert grids(kept["spec"])[0][0][0]["grouping"] == [{"section": "config", "name": "arch.value"}]
    assert (server.views, (tmp_path / MEMORY).exists()) == ({}, False)
    assert publish([], tmp_path) == "no W&B report: no run directories were found"


@pytest.mark.slow
def test_command_line(cells: list[Cell], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    words = ("report", cells[0].folder.parent, "--out", tmp_path, "--wandb")
    with WandbServer() as server:
        env = server.environment(tmp_path / "home")
        for word in ("created", "updated"):
            done = launch(*words, cwd=ROOT, **env)
            assert (done.returncode, done.stderr, len(server.views)) == (0, "", 1)
            assert f"W&B report {word}: {server.url}/me/stn/reports/Comparison-two--" in done.stdout
    down = launch(*words, cwd=ROOT, **env)
    assert (down.returncode, down.stderr, (tmp_path / SPEC).is_file()) == (1, "", True)
    assert "no W&B report: W&B does not answer" in down.stdout
    hide = "import runpy, sys; sys.modules['wandb_workspaces'] = None; runpy.run_module('launch', run_name='__main__')"
    hidden = [sys.executable, "-c", hide, *map(str, words)]
    done = subprocess.run(hidden, cwd=ROOT, capture_output=True, text=True, env=environment(**env), timeout=240)
    assert (done.returncode, done.stderr) == (2, f"error: {EXTRA}\n")


def test_the_report_is_of_the_entity_of_its_runs(server: WandbServer, cells: list[Cell], tmp_path: Path) -> None:
    renamed(cells, "log", wandb_entity="team")
    publish(cells, tmp_path)
    assert [view["entityName"] for view in server.views.values()] == ["team"]
    renamed(cells[:1], "log", wandb_entity="other")
    assert publish(cells, tmp_path).startswith("no W&B report: the runs are of several W&B entities")
