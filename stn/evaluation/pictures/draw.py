"""Draw the pictures of a run as PNGs, from its directory alone, or those of a network with given weights."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from stn.config.dataset import build_dataset
from stn.config.fields import steps_of
from stn.config.schema import Config
from stn.data.rng import initialised
from stn.data.stream import Stream
from stn.evaluation.pictures import warps
from stn.evaluation.pictures.painter import PAINTER, PROCESSES
from stn.evaluation.pictures.plans import Confusion, Curves, Line, Plan
from stn.evaluation.pictures.subject import Subject
from stn.evaluation.transformer_metrics import SHOWN
from stn.models.build import build_network
from stn.models.warping import warping
from stn.runs.directory import Row, RunDir
from stn.runs.files import write_atomic
from stn.tracking.console import warn
from stn.training.checkpoints import load_final


def draw(config: Config, run: RunDir) -> None:
    """Draw all pictures of a run; an error costs the pictures, not the run."""
    try:
        draw_run(config, run, run.pictures, gif=config.log.gif)
    except Exception as error:  # see the docstring
        warn(f"no pictures: {type(error).__name__}: {error}")


def draw_run(
    config: Config, run: RunDir, out: Path, seed: int | None = None, numbers: Sequence[int] = (), gif: bool = False
) -> list[Path]:
    """Draw a run, and what the network of a finished seed (default: the first) does to images; return the files."""
    finished = {number: row for number, row in sorted(run.rows().items()) if row["status"] == "finished"}
    if seed is not None and seed not in finished:
        raise ValueError(f"seed {seed} is not finished in {run.path}; finished: {', '.join(map(str, finished))}")
    plans, films = _of_run(config, run), []
    if finished:
        shown = min(finished) if seed is None else seed
        rows = [row for row in run.read_metrics() if row["kind"] == "warp" and row["seed"] == shown]
        title = f"{config.arch.name} on {config.data.label}, seed {shown}"
        load = partial(load_final, run, finished[shown])
        subject = cache(partial(_subject, config, lambda _: load(), title, numbers, rows, shown))
        if numbers:
            subject()  # refuses a number without an image before anything is drawn
        plans = chain(plans, _of_network(subject))
        films = [subject] if gif and rows else []
    paths = _save(plans, out)
    return paths + [warps.film(found, out / "warp.gif") for subject in films if (found := subject())]


def draw_weights(
    config: Config, load: Callable[[nn.Module], dict[str, Tensor]], title: str, out: Path, numbers: Sequence[int] = ()
) -> list[Path]:
    """Draw what the network of a configuration does to images; ``load`` returns its weights."""
    return _save(_of_network(partial(_subject, config, load, title, numbers, [])), out)


def _subject(
    config: Config,
    load: Callable[[nn.Module], dict[str, Tensor]],
    title: str,
    numbers: Sequence[int],
    rows: list[Row],
    seed: int = 0,
) -> Subject | None:
    """Return the network and its test images; None if it has no transformer."""
    dataset = build_dataset(config.data.name)
    model = initialised(partial(build_network, config), seed)
    model.load_state_dict(load(model))
    model.float().eval()
    shown = warping(model, dataset.shape)
    if shown is None:
        return None
    stream = Stream(config.data, dataset, [0])
    recorded = range(min(SHOWN, stream.test_count))
    if bad := [n for n in numbers if n not in recorded]:
        raise ValueError(f"no image {bad[0]} to show: there are 0 to {recorded[-1]}")
    return Subject(shown, stream, title, list(numbers or recorded), rows)


def _save(plans: Iterator[tuple[str, Plan | None]], out: Path) -> list[Path]:
    """Write a picture of each plan; the next plans are made while pictures are drawn."""

    def save(plan: Plan, path: Path) -> Path:
        write_atomic(path, PAINTER.paint(plan))
        return path

    drawing = ThreadPoolExecutor(PROCESSES)
    try:
        saved = [drawing.submit(save, plan, out / f"{name}.png") for name, plan in plans if plan]
        return [file.result() for file in saved]
    finally:
        drawing.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for the rest


def _of_run(config: Config, run: RunDir) -> Iterator[tuple[str, Plan | None]]:
    yield "curves", _curves(config, run)
    yield "confusion", _confusion(config, run)


@torch.no_grad()
def _of_network(subject: Callable[[], Subject | None]) -> Iterator[tuple[str, Plan | None]]:
    if found := subject():
        yield "warp", warps.warp(found)
        yield "object", warps.objects(found)
        yield "iterations", warps.iterations(found)
        yield "region", warps.region(found)
        yield "pose", warps.poses(found)


def _title(config: Config, n: int) -> str:
    return f"{config.arch.name} on {config.data.label}, {n} seed{'s' * (n != 1)}"


def _curves(config: Config, run: RunDir) -> Curves:
    """Show loss and error of every seed against the epoch."""
    every, split = steps_of(config.log.every), config.data.split
    rows = [r for r in run.read_metrics() if r["kind"] == "eval" or r["step"] % every == 0 or r["step"] < every]
    seeds = sorted({row["seed"] for row in rows})
    charts: dict[str, list[Line]] = {"loss": [], "error": []}
    for seed in seeds:
        for kind, prefix in (("train", ""), ("eval", f"{split}_")):
            points = [row for row in rows if row["seed"] == seed and row["kind"] == kind]
            epochs = [row["epoch"] for row in points]
            charts["loss"].append(Line(kind == "eval", epochs, [row[f"{prefix}loss"] for row in points]))
            charts["error"].append(Line(kind == "eval", epochs, [1 - row[f"{prefix}acc"] for row in points]))
    return Curves(_title(config, len(seeds)), split, charts)


def _confusion(config: Config, run: RunDir) -> Confusion | None:
    """Show the mean confusion matrix of the finished seeds."""
    matrices = [row["confusion"] for row in run.rows().values() if row.get("confusion")]
    if not matrices:
        return None
    title = f"{_title(config, len(matrices))}: images, mean over seeds"
    return Confusion(title, torch.tensor(matrices).double().mean(0).numpy())
