"""Every run keeps the answer of each network to each test image."""

import json
from pathlib import Path

import numpy as np
import pytest

import stn
from stn.runs.directory import RunDir
from stn.runs.predictions import Answers, KnownImages, read_answers, read_images
from tests.support.answers import known_images, write_run
from tests.support.trainer import QUICK, SMALL, TWO_THREADS, Run, only_run, train, train_in_ranks, train_with

ROTATED = ("--dataset", "mnist_r", "--steps", 12, "--eval.every", "4 steps", *QUICK, *SMALL)


def kept(run: Run) -> tuple[dict[int, Answers], KnownImages]:
    """Return the answers by seed, and what is known of the images."""
    return {s: read_answers(run.path, row) for s, row in run.results().items()}, read_images(run.path)


def assert_as_scored(run: Run) -> None:
    """The answers must give the confusion matrices of the result rows."""
    answers, images = kept(run)
    for seed, row in run.results().items():
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (images.label_N, answers[seed].predicted_N), 1)
        assert confusion.tolist() == row["confusion"]
        right = answers[seed].predicted_N == images.label_N
        assert right.mean() == pytest.approx(row["test_acc"])
        assert (answers[seed].margin_N[right] >= 0).all()
        assert (answers[seed].margin_N[~right] <= 0).all()


def test_answers_are_those_that_were_scored(tmp_path: Path) -> None:
    """Of three seeds as one network; one more evaluation than the schedule's would be seen in its count."""
    counted = "import stn.evaluation.accuracy as a, atexit\ncalls = []\nplain = a.evaluate_images\n"
    counted += "a.evaluate_images = lambda *x: calls.append(1) or plain(*x)\n"
    counted += f"atexit.register(lambda: open({str(tmp_path / 'calls')!r}, 'w').write(str(len(calls))))"
    done = train_with(counted, "--seeds", "0-2", *ROTATED, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == "4", "three of the schedule, one without the transformer"
    run = only_run(tmp_path / "runs")
    assert_as_scored(run)
    answers, images = kept(run)
    x_MCHW, y_N = stn.load(run.path).test_images(300)
    assert images.label_N.tolist() == y_N.tolist()
    assert (images.pose, images.originals, images.pose_NP.shape) == (("degrees",), 300, (300, 1))
    assert np.abs(images.pose_NP).max() > 80
    pixels = (255 * x_MCHW[images.number_M]).round().byte().numpy()
    assert (images.pixels_MCHW == pixels).all()
    right = np.mean([a.predicted_N == images.label_N for a in answers.values()], axis=0)
    assert (np.diff(right[images.number_M]) >= 0).all()
    assert right[images.number_M].max() <= np.delete(right, images.number_M).min()


@pytest.mark.slow
def test_a_seed_alone_and_a_resumed_one_answer_the_same(tmp_path: Path) -> None:
    words = ("--precision", "fp64", *ROTATED, *TWO_THREADS)
    assert train("--seeds", "0-1", *words, runs=tmp_path / "two").returncode == 0
    assert train("--seeds", "1", *words, runs=tmp_path / "alone").returncode == 0
    cut = ("--seeds", "0-1", "--checkpoint.every", "5 steps", *words)
    assert train(*cut, "--train.time-limit", "1e-6", runs=tmp_path / "cut").returncode == 0
    assert only_run(tmp_path / "cut").status()["state"] == "stopped"
    assert not list((tmp_path / "cut").rglob("seed-0.safetensors"))
    assert train(*cut, runs=tmp_path / "cut").returncode == 0
    two, alone, resumed = (only_run(tmp_path / name) for name in ("two", "alone", "cut"))
    for seed in (0, 1):
        assert resumed.results()[seed]["predictions"] == two.results()[seed]["predictions"]
    assert (kept(two)[0][1].predicted_N == kept(alone)[0][1].predicted_N).all()
    np.testing.assert_allclose(kept(two)[0][1].margin_N, kept(alone)[0][1].margin_N, atol=1e-3)


@pytest.mark.slow
def test_two_ranks_put_their_answers_in_order(tmp_path: Path) -> None:
    """Of 301 images they do not have the same number."""
    words = ("--parallel", "data", *ROTATED, "--limit-test", 301)
    done = train_in_ranks("--seeds", "0-1", *words, runs=tmp_path / "ranks")
    assert done.returncode == 0, done.stderr
    assert train("--seeds", "0", *ROTATED, "--limit-test", 301, runs=tmp_path / "one").returncode == 0
    run, one = only_run(tmp_path / "ranks"), only_run(tmp_path / "one")
    assert run.results()[0]["world_size"] == 2
    assert_as_scored(run)
    images, expected = read_images(run.path), read_images(one.path)
    assert (images.label_N == expected.label_N).all()
    assert (images.pose_NP == expected.pose_NP).all()


@pytest.mark.slow
def test_a_failed_seed_has_none(tmp_path: Path) -> None:
    done = train("--lr", "1e30", "--seeds", "0", *ROTATED, "--optim.name", "sgd", runs=tmp_path)
    assert done.returncode == 1
    run = only_run(tmp_path)
    assert run.results()[0]["status"] == "failed"
    assert "predictions" not in run.results()[0]
    assert not (run.path / "predictions").exists()


@pytest.mark.slow
def test_damage_is_told_when_the_command_is_repeated(tmp_path: Path) -> None:
    words = ("--seeds", "0-1", *ROTATED)
    assert train(*words, runs=tmp_path).returncode == 0
    run = only_run(tmp_path)
    path, rows = run.path / "predictions" / "seed-1.safetensors", run.results()
    path.write_bytes(path.read_bytes()[:-1])
    again = train(*words, runs=tmp_path)
    assert again.returncode == 0
    assert "seed-1.safetensors is damaged" in again.stdout + again.stderr
    assert run.results() == rows
    assert not RunDir(run.path).is_whole()
    assert json.loads((run.path / "status.json").read_text())["state"] == "finished"


def test_answers_are_read_in_python(tmp_path: Path) -> None:
    images = known_images(50)
    written = write_run(tmp_path, "cnn", range(2), images, 0.2)
    run = stn.load(tmp_path)
    assert (run.answers(1).predicted_N == written[1].predicted_N).all()
    assert (run.known_images().label_N == images.label_N).all()
    for row in run.rows:
        del row["predictions"]
    with pytest.raises(ValueError, match="kept no answers of seed 0"):
        run.answers()
