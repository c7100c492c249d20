"""Answers that are missing, damaged or to other images cost their seeds the comparison by image, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launch.report import build
from launch.report.analysis.images import blocks
from launch.report.analysis.images.answers import NO_ANSWERS
from launch.report.analysis.sections import Section
from stn.commands.library.tables import results
from stn.runs.directory import RunDir
from stn.runs.predictions import write_images
from tests.support.answers import known_images, write_run

IMAGES = known_images(300)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for arch in ("cnn", "stn_c0"):
        write_run(tmp_path / "two", arch, range(4), IMAGES, 0.2)
    return tmp_path / "two"


def read(folder: Path) -> Section:
    (section,) = build.compare([str(folder)]).sections
    assert [len(cell.rows) for cell in section.cells] == [4, 4], "rows count as before"
    return section


def seeds(section: Section) -> list[int]:
    return [seed.seed for pair in section.images.pairs for seed in pair.seeds]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "of another seed": lambda path: path.write_bytes(path.with_name("seed-1.safetensors").read_bytes()),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_its_seed_and_is_named(two: Path, damage: str) -> None:
    path = two / "sig-cnn-mnist_r" / "0-3" / "predictions" / "seed-2.safetensors"
    DAMAGES[damage](path)
    section = read(two)
    (note,) = section.images.notes
    assert str(path) in note
    assert note.endswith("; seed 2 of cnn is left out where images are compared")
    assert seeds(section) == [0, 1, 3]
    for name in ("index.html", "report.md"):
        assert "seed 2 of cnn is left out" in (two / "report" / name).read_text()
    told: list[str] = []
    run = RunDir(path.parents[1])
    assert not run.is_whole()
    run.heal(told.append)
    assert [text for text in told if text.endswith("; reports leave it out where they compare images")]
    assert any(str(path) in text for text in told)


@pytest.mark.parametrize("damage", ["missing", "truncated", "folder"])
def test_results_in_python_name_what_is_missing_or_cut(two: Path, damage: str, capsys: pytest.CaptureFixture) -> None:
    path = two / "sig-cnn-mnist_r" / "0-3" / "predictions" / "seed-2.safetensors"
    DAMAGES[damage](path)
    assert len(results(two, frame=False)) == 8
    told = capsys.readouterr()
    assert "seed-2.safetensors" in "".join((told.out + told.err).split())


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "folder"])
def test_labels_of_another_run_do(two: Path, damage: str) -> None:
    path = two / "sig-cnn-mnist_r" / "0-3" / "predictions" / "images.safetensors"
    DAMAGES[damage](path)
    section = read(two)
    (note,) = section.images.notes
    assert str(path) in note
    assert seeds(section) == [0, 1, 2, 3]
    assert not RunDir(path.parents[1]).is_whole()


def test_without_any_labels_nothing_is_compared_by_image(two: Path) -> None:
    for path in two.rglob("images.safetensors"):
        path.unlink()
    section = read(two)
    assert not section.images.blocks
    assert section.images.notes[-1] == "images are not compared: no run says what its test images are"


@pytest.mark.parametrize("other", [known_images(300, seed=1), known_images(200)], ids=["labels", "number"])
def test_another_test_set_is_left_out(tmp_path: Path, other) -> None:
    write_run(tmp_path, "cnn", range(4), IMAGES, 0.2)
    write_run(tmp_path, "stn_c0", range(3), IMAGES, 0.2)
    write_run(tmp_path, "stn_slx", range(2), other, 0.2)
    (section,) = build.compare([str(tmp_path)]).sections
    assert section.images.notes == [
        "stn_slx: seeds 0-1 were tested on other images than the rest; they are left out where images are compared"
    ]
    assert [pair.label for pair in section.images.pairs] == ["stn_c0 - cnn"]


def test_another_test_set_is_known_by_the_hash_of_its_labels(tmp_path: Path) -> None:
    """Where its run no longer says what its images were."""
    write_run(tmp_path, "cnn", range(4), IMAGES, 0.2)
    write_run(tmp_path, "stn_c0", range(3), known_images(300, seed=1), 0.2)
    (tmp_path / "sig-stn_c0-mnist_r" / "0-2" / "predictions" / "images.safetensors").unlink()
    (section,) = build.compare([str(tmp_path)]).sections
    assert "stn_c0: seeds 0-2 were tested on other images than the rest" in section.images.notes[-1]
    assert not section.images.pairs


def test_other_poses_are_another_test_set(two: Path) -> None:
    """The labels are the same: a perturbation was changed between the runs."""
    run = RunDir(two / "sig-stn_c0-mnist_r" / "0-3")
    turned = IMAGES._replace(pose_NP=IMAGES.pose_NP + np.float32(1))
    write_images(run, turned)
    section = read(two)
    assert any("stn_c0: seeds 0-3 were tested on other images" in note for note in section.images.notes)
    assert not section.images.pairs


def test_rows_of_before_still_read(two: Path) -> None:
    """All of one architecture, and half of the other's."""
    for folder, old in (("sig-cnn-mnist_r", 4), ("sig-stn_c0-mnist_r", 2)):
        run = RunDir(two / folder / "0-3")
        rows = [row for _, row in sorted(run.rows().items())]
        for row in rows[:old]:
            del row["predictions"], row["row_sha256"]
            (run.published / str(row["seed"])).write_text(json.dumps(row) + "\n")
        run.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = read(two)
    assert section.images.notes == [
        "cnn: seeds 0-3 kept no answers to single images",
        "stn_c0: seeds 0-1 kept no answers to single images",
    ]
    assert [block.name for block in section.images.blocks] == ["classes", "hardest"]
    assert len(results(two, frame=False)) == 8


def test_reports_of_runs_of_before_say_that_they_have_no_answers(tmp_path: Path) -> None:
    for arch in ("cnn", "stn_c0"):
        write_run(tmp_path, arch, range(4), IMAGES, 0.2)
    build.compare([str(tmp_path)])
    assert (tmp_path / "report" / "mcnemar.csv").is_file()
    for path in tmp_path.glob("*/*"):
        if path.is_dir() and (path / "results.jsonl").is_file():
            run = RunDir(path)
            rows = [
                {k: v for k, v in row.items() if k not in ("predictions", "row_sha256")} for row in run.rows().values()
            ]
            for row in rows:
                (run.published / str(row["seed"])).write_text(json.dumps(row) + "\n")
            run.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = read(tmp_path)
    assert (section.images.notes, section.images.blocks) == ([NO_ANSWERS], [])
    assert not (tmp_path / "report" / "mcnemar.csv").exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"file": "../../secret.safetensors", "bytes": 1, "sha256": "0" * 64, "labels_sha256": "0" * 64},
        {"file": "predictions/seed-0.safetensors"},
        "predictions/seed-0.safetensors",
    ],
)
def test_a_row_that_names_no_file_of_its_own_is_damaged(two: Path, facts: object) -> None:
    run = RunDir(two / "sig-cnn-mnist_r" / "0-3")
    row = run.rows()[0] | {"predictions": facts}
    del row["row_sha256"]
    run.results.write_text(json.dumps(row) + "\n")
    (run.published / "0").write_text(json.dumps(row) + "\n")
    assert 0 not in run.rows()


def test_of_many_architectures_the_first_are_compared(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(two, "stn_slx", range(4), IMAGES, 0.2)
    monkeypatch.setattr(blocks, "MOST_IN_MATRIX", 2)
    (section,) = build.compare([str(two)]).sections
    assert section.images.notes == ["the first 2 of 3 architectures are compared image by image"]
    assert [pair.label for pair in section.images.pairs] == ["stn_c0 - cnn"]
