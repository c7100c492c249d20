"""The pictures that TensorBoard and W&B show during training: few, files first, and harmless."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Eval, Train
from stn.config.schema import Log as LogFields
from stn.data.stream import Stream
from stn.evaluation.pictures.snapshot import snapshot_png
from stn.evaluation.transformer_metrics import transform_snapshots
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial
from stn.tracking import log as log_module
from stn.tracking import pictures
from stn.tracking.log import Log, log_end
from stn.tracking.sinks import TensorBoardSink


def config(steps: int = 100, every: int = 10, **log_fields) -> Config:
    log = LogFields(name="exp", **{"wandb": "disabled", **log_fields})
    train, limit = Train(steps=steps, seeds="0-9"), Data(limit_train=1280)
    return resolve(
        Config(arch=Arch(name="stn_cx"), data=limit, train=train, eval=Eval(every=f"{every} steps"), log=log)
    )


def rows(kind: str, seeds: list[int], step: int) -> list[Row | None]:
    at = {"kind": kind, "step": step, "epoch": step / 10}
    return [at | {"seed": s} | ({"theta": [[1.0]]} if kind == "warp" else {"test_acc": 0.5}) for s in seeds]


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 3), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("steps", [1, 7, 240, 241, 999, 1000, 24_000, 24_001])
@pytest.mark.parametrize("every", [1, 3, 10, 999, 5000])
def test_few_evaluations_are_drawn_and_the_last_is(steps: int, every: int) -> None:
    fields = config(steps, every)
    due = [step for step in range(1, steps + 1) if step % every == 0 or step == steps]
    shown = [step for step in due if pictures.is_shown(fields, step)]
    assert shown[-1] == steps
    assert len(shown) <= pictures.SHOWN_EVALUATIONS
    assert len(shown) == len(due) or len(shown) >= pictures.SHOWN_EVALUATIONS / 2


class Sink:
    """A sink that shows pictures, and sees which are there when it is told of an evaluation."""

    shows_pictures = True

    def __init__(self, run: RunDir, seeds: list[int], start: int) -> None:
        self.run, self.seen = run, list[str]()

    def write(self, told: list[Row]) -> None:
        there = [row["seed"] for row in told if pictures.warps_file(self.run, row["seed"], row["step"]).is_file()]
        self.seen.append(f"{told[0]['kind']} {told[0]['step']}: {there}")

    def close(self, results: list[Row]) -> None:
        pass


def opened(monkeypatch: pytest.MonkeyPatch, run: RunDir, draw: Callable[[Row], bytes], **fields) -> tuple[Log, Sink]:
    monkeypatch.setattr(log_module, "TensorBoardSink", Sink)
    trials = [Trial(config(tensorboard=True, **fields), "abc", seed, run) for seed in range(2, 8)]
    log = Log(trials, 0, writes=True, draw=draw)
    (sink,) = [sink for _, sink, _ in log.sinks if isinstance(sink, Sink)]
    return log, sink


def test_warps_are_files_before_they_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seeds = RunDir(tmp_path / "2-7"), list(range(2, 8))
    log, sink = opened(monkeypatch, run, lambda row: png(row["seed"]))
    log.write([], rows("warp", seeds, 0))
    log.write([None, *rows("eval", seeds, 10)[1:]], [None, *rows("warp", seeds, 10)[1:]])
    log.write([], rows("warp", seeds, 15))
    assert sink.seen == ["eval 10: [3, 4, 5]"]
    assert sorted(path.parent.name for path in run.pictures.rglob("*.png")) == ["seed-3", "seed-4", "seed-5"]
    assert pictures.warps_file(run, 4, 10).read_bytes() == png(4)
    assert [(row["kind"], row["seed"]) for row in run.read_metrics() if row["step"] == 10] == [
        (kind, seed) for kind in ("eval", "warp") for seed in seeds[1:]
    ]


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(row: Row) -> bytes:
        raise RuntimeError("no ink")

    said: list[str] = []
    monkeypatch.setattr(log_module, "warn", said.append)
    log, sink = opened(monkeypatch, RunDir(tmp_path / "2-7"), fail)
    for step in (10, 20):
        log.write(rows("eval", [2], step), rows("warp", [2], step))
    assert said == ["no pictures of the warps: RuntimeError: no ink"]
    assert sink.seen == ["eval 10: []", "eval 20: []"]


@pytest.mark.parametrize("reason", ["nobody shows them", "--log.no-pictures"])
def test_nothing_is_drawn_for_nobody(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(row: Row) -> bytes:
        drawn.append(row["step"])
        return png()

    monkeypatch.setattr(Sink, "shows_pictures", reason != "nobody shows them")
    log, _ = opened(monkeypatch, RunDir(tmp_path / "2-7"), draw, pictures=reason != "--log.no-pictures")
    log.write(rows("eval", [2], 10), rows("warp", [2], 10))
    assert drawn == []


def test_the_seeds_of_a_long_list(tmp_path: Path) -> None:
    assert pictures.shown_seeds(config(), RunDir(tmp_path / "6,8-11,20")) == [6, 8, 9, 10]
    assert pictures.shown_seeds(config(), RunDir(tmp_path / "60-seeds-0123abcd")) == [0, 1, 2, 3]


def test_confusion_matrices() -> None:
    for matrix, drawn in (([[3, 1], [0, 4]], True), ([], False), ([[1, 2]], False), ([[0] * 101] * 101, False)):
        assert pictures.can_draw_confusion({"confusion": matrix}) == drawn
    image = np.asarray(pictures.confusion_image([[8, 0], [4, 4]]))
    assert image.shape == (60, 60, 3)
    assert [tuple(image[y, x]) for y, x in ((25, 25), (25, 55))] == [(8, 48, 107), (255, 255, 255)]


def identity_row(count: int, step: int = 10) -> Row:
    return {"kind": "warp", "seed": 0, "step": step, "epoch": 1.0, "theta": [[1.0, 0, 0, 0, 1.0, 0]] * count}


def test_the_identity_leaves_images_as_they_are() -> None:
    fields, dataset = config(), build_dataset("mnist")
    stream = Stream(fields.data, dataset, [0, 1])
    model = StackedModel(partial(build_network, fields), [0, 1])
    before = torch.random.get_rng_state()
    picture = np.asarray(Image.open(io.BytesIO(snapshot_png(model, stream, identity_row(12)))))
    assert torch.equal(before, torch.random.get_rng_state()), "training draws the same numbers with and without"
    side = (picture.shape[0] - 18) // 2
    above, below = picture[18 : 18 + side].astype(int), picture[18 + side :].astype(int)
    assert (side, picture.shape[1]) == (58, 12 * 58)
    assert abs(above - below).max() <= 2
    assert above.max() > 200


@pytest.mark.parametrize(
    ("arch", "dataset", "lines"),
    [
        (Arch(name="stn_c0", transform="tps", points=3), "mnist_r", 1),
        (Arch(name="stn_slx", transform="projective", iterations=2), "mnist_t", 1),
        (Arch(name="stn_c0", parallel=2, transform="attention"), "mnist", 2),
    ],
)
def test_every_kind_of_transform_is_drawn(arch: Arch, dataset: str, lines: int) -> None:
    fields = resolve(Config(arch=arch, data=Data(name=dataset, limit_test=5)))
    stream = Stream(fields.data, build_dataset(dataset), [3, 4], dtype=torch.float64)
    model = StackedModel(partial(build_network, fields), [3, 4], dtype=torch.float64)
    for row in transform_snapshots(model, stream, 0):
        assert row
        picture = Image.open(io.BytesIO(snapshot_png(model, stream, row)))
        side = picture.width // 5
        assert (picture.width, picture.height) == (5 * side, 18 + (1 + lines) * side)


def test_tensorboard_shows_the_same(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, fields = RunDir(tmp_path / "0"), config(tensorboard=True)
    for step in (10, 20):
        run.replace(pictures.warps_file(run, 0, step), png(step))
    sink = TensorBoardSink(run, [0], 0)
    for step in (10, 20, 30):
        sink.write([row for row in rows("eval", [0], step) if row])
    result = {"seed": 0, "status": "finished", "steps": 30, "confusion": [[1, 0], [0, 1]]}
    sink.close([result])
    run.replace(run.pictures / "curves.png", png(7))
    run.add_results([result])
    log_end(fields, "abc", run)
    assert pictures.ending(run) is None, "it has not come to an end"
    run.write_status("finished")
    log_end(fields, "abc", run)
    events = accumulator.EventAccumulator(str(run.path / "tensorboard" / "seed-0"), size_guidance={"images": 0})
    events.Reload()
    shown = {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}
    assert shown == {"warps": [10, 20], "confusion": [30], "pictures/curves": [30]}
    red = [
        int(np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))[0, 0, 0]) for image in events.Images("warps")
    ]
    assert red == [10, 20]
