"""The pictures of a run, as PNG, from its directory alone; or of a network with given weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stn.config.dataset import build_dataset
from stn.config.schema import Config
from stn.data.stream import Stream
from stn.evaluation.pose import SHOWN
from stn.models.build import build_network
from stn.models.wirings import Transformed
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_rows
from stn.tracking.console import warn
from stn.training.checkpoints import load_final

if TYPE_CHECKING:
    from stn.pictures.subject import Subject


def draw(config: Config, run: RunDir) -> None:
    """All pictures; whatever fails here costs the pictures only."""
    try:
        of_run(config, run, run.pictures, gif=config.log.gif)
    except Exception as error:  # see the docstring
        warn(f"no pictures: {type(error).__name__}: {error}")


def of_run(
    config: Config, run: RunDir, out: Path, seed: int | None = None, numbers: Sequence[int] = (), gif: bool = False
) -> list[Path]:
    """Of a run, and of what the network of its first finished seed, or another one, does to images."""
    from stn.pictures import scores  # matplotlib takes half a second
    from stn.pictures.sheet import save

    finished = [row["seed"] for row in read_rows(run.results) if row.get("status") == "finished"]
    if seed is not None and seed not in finished:
        raise ValueError(f"seed {seed} is not finished in {run.path}; finished: {', '.join(map(str, finished))}")
    subject = None
    if finished:
        chosen = finished[0] if seed is None else seed
        rows = [row for row in read_rows(run.metrics) if row["kind"] == "warp" and row["seed"] == chosen]
        title = f"{config.arch.name} on {config.data.name}, seed {chosen}"
        subject = _subject(config, lambda _: load_final(run, chosen), title, numbers, rows)
    figures = (("curves", scores.curves(config, run)), ("confusion", scores.confusion(config, run)))
    paths = [save(figure, out / f"{name}.png") for name, figure in figures if figure]
    return paths + _warps(subject, out, gif)


def of_weights(
    config: Config, load: Callable[[nn.Module], dict[str, Tensor]], title: str, out: Path, numbers: Sequence[int] = ()
) -> list[Path]:
    """Of a network of which there is no more than a configuration and its weights."""
    return _warps(_subject(config, load, title, numbers, []), out, gif=False)


def _subject(
    config: Config,
    load: Callable[[nn.Module], dict[str, Tensor]],
    title: str,
    numbers: Sequence[int],
    rows: list[Row],
) -> "Subject | None":
    """Nothing where there is no transformer."""
    from stn.pictures.subject import Subject

    dataset = build_dataset(config.data.name)
    model = build_network(config)
    model.load_state_dict(load(model))
    if not isinstance(model, Transformed):
        return None
    stream = Stream(config.data, dataset, [0])
    shown = min(SHOWN, stream.test_count)
    if bad := [n for n in numbers if not 0 <= n < shown]:
        raise ValueError(f"no image {bad[0]} to show: there are 0 to {shown - 1}")
    return Subject(model.float().eval(), stream, title, list(numbers) or list(range(shown)), rows)


@torch.no_grad()
def _warps(subject: "Subject | None", out: Path, gif: bool) -> list[Path]:
    from stn.pictures import warps
    from stn.pictures.sheet import save

    if subject is None:
        return []
    makers = {
        "warp": warps.warp,
        "object": warps.objects,
        "iterations": warps.iterations,
        "region": warps.region,
        "pose": warps.poses,
    }
    paths = [save(figure, out / f"{name}.png") for name, make in makers.items() if (figure := make(subject))]
    return [*paths, warps.film(subject, out / "warp.gif")] if gif and subject.rows else paths
