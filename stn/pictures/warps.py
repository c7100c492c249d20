"""What transformers do to images, drawn: on the way, to one object, step by step, as a region, as a pose."""

import io
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from stn.data.stream import Stream
from stn.evaluation import pose
from stn.models.grids import affine_grid, sample
from stn.pictures.sheet import Strip, sheet
from stn.pictures.subject import Subject, as_maps, image_grids, outline
from stn.runs.files import write_atomic

_POINTS = 3_000
_OBJECTS = 3
_PERTURBATIONS = 10
"""Of an object: those of the test set, and further ones where that has fewer."""
_ROTATIONS = torch.linspace(-60, 60, 11)
_POSES = {
    "degrees": ("rotation (degrees)", "{:.0f}°"),
    "log2_area": ("area (log2)", "{:+.1f}"),
    "shift": ("shift (pixels)", "{:+.0f}, {:+.0f}"),
}


def warp(s: Subject) -> Figure:
    """The same images at the start, in the middle and at the end of training."""
    strips = [Strip("input", s.stream.as_image(s.x_BCHW))]
    if s.rows:
        half = s.rows[-1]["step"] / 2
        middle = min(s.rows, key=lambda row: abs(row["step"] - half))
        for row in {row["step"]: row for row in (s.rows[0], middle, s.rows[-1])}.values():
            strips += s.strips(f"epoch {row['epoch']:.3g}", s.x_BCHW, s.recorded(row))
    else:
        strips += s.strips("warped", s.x_BCHW, s.theta(s.x_BCHW))
    if s.model.at[-1]:
        strips.append(
            Strip("warped\nfeature map,\nmean over\nchannels", as_maps(s.model.warps(s.x_BCHW)[-1].image_BCHW))
        )
    return sheet(s.title, strips)


def _turned(stream: Stream, number: int) -> Tensor:
    """One image under rotations, black outside, counter-clockwise as seen."""
    a = torch.deg2rad(_ROTATIONS)
    rows = torch.stack([a.cos(), -a.sin(), 0 * a, a.sin(), a.cos(), 0 * a], 1)
    plain = stream.as_image(stream.test_images(torch.tensor([number])).x_BCHW).expand(len(a), -1, -1, -1)
    grid = affine_grid(rows.view(-1, 2, 3), (plain.shape[2], plain.shape[3]), align_corners=True)
    return stream.as_input(sample(plain, grid, "zeros", True))


def objects(s: Subject) -> Figure:
    """A few objects of different classes under many perturbations, before and after."""
    dataset, strips = s.stream.dataset, []
    labels = s.stream.test_images(torch.tensor(s.numbers)).y_B.tolist()
    first = {label: number for number, label in reversed(list(zip(s.numbers, labels, strict=True)))}
    count = s.stream.data.validation or dataset.test
    kind = ("shift" if dataset.pose[0] == "x" else dataset.pose[0]) if dataset.perturb else "degrees"
    unit, wording = _POSES.get(kind, ("", ""))
    for number in sorted(first.values(), key=s.numbers.index)[:_OBJECTS]:
        if dataset.perturb:
            batch = s.stream.test_images(torch.arange(_PERTURBATIONS) * count + number)
            order = batch.pose_BP[:, 0].argsort()
            x_BCHW, applied = batch.x_BCHW[order], batch.pose_BP[order]
        else:
            x_BCHW, applied = _turned(s.stream, number), _ROTATIONS.unsqueeze(1)
        titles = [wording.format(*line) for line in applied.tolist()]
        strips += [
            Strip("input", s.stream.as_image(x_BCHW), titles),
            *s.strips("warped", x_BCHW, s.theta(x_BCHW)),
            None,
        ]
    return sheet(f"{s.title}: one object under many perturbations{unit and f', {unit}'}", strips[:-1])


def iterations(s: Subject) -> Figure | None:
    """Each resampling of networks that have several."""
    warps = s.model.warps(s.x_BCHW[:6])
    if sum(len(found.steps) for found in warps) == 1:
        return None
    columns = [s.stream.as_image(s.x_BCHW[:6])]
    titles = ["input"]
    head = "parallel" if s.model.options.parallel > 1 else "head"
    for t, (at, st, found) in enumerate(zip(s.model.at, s.model.st, warps, strict=True)):
        turns = len(found.steps) // len(st.heads)  # type: ignore[arg-type]
        for k, step in enumerate(found.steps):
            columns.append(as_maps(step) if at else s.stream.as_image(step))
            names = ((f"transformer {t + 1}", len(warps)), (f"{head} {k // turns + 1}", len(found.steps) // turns))
            words = [word for word, n in (*names, (f"step {k % turns + 1}", turns)) if n > 1]
            titles.append("\n".join(words))
    return sheet(
        s.title, [Strip("", line, titles if i == 0 else ()) for i, line in enumerate(zip(*columns, strict=True))]
    )


def region(s: Subject) -> Figure:
    """Which part of the image is sampled, and what becomes of it."""
    shape, theta_BP = s.stream.dataset.shape, s.theta(s.x_BCHW)
    lines = [outline(g, shape[1:], s.model.options.align_corners) for g in image_grids(s.model, shape, theta_BP)]
    before = Strip("sampled\nregion", s.stream.as_image(s.x_BCHW), outlines=lines)
    return sheet(s.title, [before, *s.strips("sampled", s.x_BCHW, theta_BP)])


def poses(s: Subject) -> Figure | None:
    """Predicted against applied pose over test images from one end of the test set to the other."""
    index_N = torch.linspace(0, s.stream.test_count - 1, min(_POINTS, s.stream.test_count)).long()
    batches = [s.stream.test_images(part) for part in index_N.split(500)]
    A_N33 = torch.cat([pose.whole(s.model, s.stream.dataset.shape, s.model.warps(batch.x_BCHW)) for batch in batches])
    pose_NP, label_N = torch.cat([b.pose_BP for b in batches]).double(), torch.cat([b.y_B for b in batches])
    kinds = list(pose.applied_and_made(s.model, s.stream, A_N33, pose_NP))
    if not kinds:
        return None
    figure = Figure(figsize=(5.2 * len(kinds), 4.6))
    for axis, (kind, applied, made) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        found = pose.summarise(kind, applied, made, label_N)
        columns = (each.view(len(each), -1).T for each in (applied, pose.predicted(kind, applied, made)))
        for j, (x, y) in enumerate(zip(*columns, strict=True)):
            name = "xy"[j] if kind == "shift" else None
            axis.scatter(x, y, s=9, alpha=0.25, color=("#0072B2", "#009E73")[j], linewidths=0, label=name)
        axis.axline((0, 0), slope=1, color="0.6", ls="--", lw=1, label="all undone")
        if math.isfinite(found["slope"]):
            axis.axline((0, found["intercept"]), slope=found["slope"], color="#D55E00", lw=1.2, label="orthogonal fit")
        reach = [min(*axis.get_xlim(), *axis.get_ylim()), max(*axis.get_xlim(), *axis.get_ylim())]
        axis.set(xlim=reach, ylim=reach, aspect="equal")
        axis.set(xlabel=f"applied {_POSES[kind][0]}", ylabel=f"predicted {_POSES[kind][0]}")
        figures = ", ".join(f"{key} {found[key]:.3g}" for key in ("spread", "slope", "intercept"))
        axis.set_title(f"{figures} (n = {len(applied):,})", fontsize=10)
        axis.grid(alpha=0.3)
        for handle in axis.legend(fontsize=8).legend_handles:
            handle.set_alpha(1)
    figure.suptitle(s.title, fontsize=10)
    return figure


def film(s: Subject, path: Path) -> Path:
    """The images on their way through training: a frame per row of the record."""
    from PIL import Image, ImageDraw

    frames, before = [], s.stream.as_image(s.x_BCHW)
    larger = -(-84 // before.shape[-1])
    for row in s.rows:
        lines = [F.interpolate(i, before.shape[2:]) for i in (before, *s.warped(s.x_BCHW, s.recorded(row)))]
        cells = [F.pad(line.clamp(0, 1), (0, 1, 0, 1), value=0.5) for line in lines]
        picture = torch.cat([torch.cat(list(line), 2) for line in cells], 1)
        picture = F.interpolate(picture[None] * 255, scale_factor=larger)[0].byte().permute(1, 2, 0)
        frame = Image.new("RGB", (picture.shape[1], picture.shape[0] + 18))
        frame.paste(Image.fromarray(picture.expand(-1, -1, 3).contiguous().numpy()), (0, 18))
        # Two frames that are the same would become one.
        ImageDraw.Draw(frame).text((4, 3), f"epoch {row['epoch']:.3g}   step {row['step']}", fill="white")
        frames.append(frame)
    buffer = io.BytesIO()
    pause = [300] * (len(frames) - 1) + [2000]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=pause, loop=0)
    write_atomic(path, buffer.getvalue())
    return path
