"""Draw the pictures of a run as PNGs, from its directory alone, or those of a network with given weights."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from stn.config.dataset import build_dataset
from stn.config.fields import steps_of
from stn.config.schema import Config
from stn.data.stream import Stream
from stn.evaluation.pictures import warps
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
    subject = None
    if finished:
        shown = min(finished) if seed is None else seed
        rows = [row for row in run.read_metrics() if row["kind"] == "warp" and row["seed"] == shown]
        title = f"{config.arch.name} on {config.data.label}, seed {shown}"
        subject = _subject(config, lambda _: load_final(run, finished[shown]), title, numbers, rows)
    figures = {"curves": _curves(config, run), "confusion": _confusion(config, run)}
    paths = [_save(figure, out / f"{name}.png") for name, figure in figures.items() if figure]
    return paths + _draw_warps(subject, out, gif)


def draw_weights(
    config: Config, load: Callable[[nn.Module], dict[str, Tensor]], title: str, out: Path, numbers: Sequence[int] = ()
) -> list[Path]:
    """Draw what the network of a configuration does to images; ``load`` returns its weights."""
    return _draw_warps(_subject(config, load, title, numbers, []), out, gif=False)


def _subject(
    config: Config,
    load: Callable[[nn.Module], dict[str, Tensor]],
    title: str,
    numbers: Sequence[int],
    rows: list[Row],
) -> Subject | None:
    """Return the network and its test images; None if it has no transformer."""
    dataset = build_dataset(config.data.name)
    model = build_network(config)
    model.load_state_dict(load(model))
    shown = warping(model.float().eval(), dataset.shape)
    if shown is None:
        return None
    stream = Stream(config.data, dataset, [0])
    recorded = range(min(SHOWN, stream.test_count))
    if bad := [n for n in numbers if n not in recorded]:
        raise ValueError(f"no image {bad[0]} to show: there are 0 to {recorded[-1]}")
    return Subject(shown, stream, title, list(numbers or recorded), rows)


@torch.no_grad()
def _draw_warps(subject: Subject | None, out: Path, gif: bool) -> list[Path]:
    if subject is None:
        return []
    makers = {
        "warp": warps.warp,
        "object": warps.objects,
        "iterations": warps.iterations,
        "region": warps.region,
        "pose": warps.poses,
    }
    paths = [_save(figure, out / f"{name}.png") for name, make in makers.items() if (figure := make(subject))]
    return [*paths, warps.film(subject, out / "warp.gif")] if gif and subject.rows else paths


def _save(figure: Figure, path: Path) -> Path:
    """Write what is on a figure; bbox_inches="tight" would do the same and draw it twice."""
    figure.set_dpi(120)
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()).padded(0.08)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches=box)
    write_atomic(path, buffer.getvalue())
    return path


def _title(config: Config, n: int) -> str:
    return f"{config.arch.name} on {config.data.label}, {n} seed{'s' * (n != 1)}"


def _curves(config: Config, run: RunDir) -> Figure:
    """Plot loss and error of every seed against the epoch."""
    every, split = steps_of(config.log.every), config.data.split
    rows = [r for r in run.read_metrics() if r["kind"] == "eval" or r["step"] % every == 0 or r["step"] < every]
    seeds = sorted({row["seed"] for row in rows})
    training = {"label": "training", "color": "tab:blue"}
    evaluation = {"label": split, "color": "tab:orange", "marker": "o"}
    figure = Figure(figsize=(10, 3.8))
    axes = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "right": 0.99, "bottom": 0.13, "top": 0.91, "wspace": 0.23})
    for axis, quantity, key in zip(axes, ("loss", "error"), ("loss", "acc"), strict=True):
        for seed in seeds:
            for kind, prefix, style in (("train", "", training), ("eval", f"{split}_", evaluation)):
                points = [row for row in rows if row["seed"] == seed and row["kind"] == kind]
                values = [row[prefix + key] for row in points]
                if quantity == "error":
                    values = [1 - accuracy for accuracy in values]
                axis.plot([row["epoch"] for row in points], values, ms=4, lw=1.2, **style)
        axis.set(xlabel="epoch", ylabel=quantity, yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(handles=axis.lines[:2])  # the first seed's
    figure.suptitle(_title(config, len(seeds)))
    return figure


def _confusion(config: Config, run: RunDir) -> Figure | None:
    """Draw the mean confusion matrix of the finished seeds."""
    matrices = [row["confusion"] for row in run.rows().values() if row.get("confusion")]
    if not matrices:
        return None
    mean_KK = torch.tensor(matrices).double().mean(0)
    share_KK = mean_KK / mean_KK.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(6, 5.4))
    axis = figure.subplots()
    axis.imshow(share_KK.numpy(), cmap="Blues", vmin=0, vmax=1)
    for i, line in enumerate(mean_KK.tolist()):
        for j, value in enumerate(line):
            colour = "white" if share_KK[i, j] > 0.5 else "black"
            axis.text(j, i, f"{value:.4g}" if value else "", ha="center", va="center", fontsize=7, color=colour)
    ticks = range(len(mean_KK))
    axis.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    axis.set_title(f"{_title(config, len(matrices))}: images, mean over seeds", fontsize=10)
    return figure
