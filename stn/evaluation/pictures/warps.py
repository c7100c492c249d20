"""What pictures show of transformers: during training, one object, step by step, a region, poses."""

import io
from pathlib import Path

import torch
from torch import Tensor

from stn.data.stream import Stream
from stn.evaluation.pictures.plans import Pose, Poses, Sheet, Strip
from stn.evaluation.pictures.snapshot import frame
from stn.evaluation.pictures.subject import Subject, as_maps, outline, strip
from stn.evaluation.pose import applied_and_compensated, total_matrix
from stn.evaluation.pose_statistics import pose_summary, predicted_pose
from stn.models.grids import affine_grid, sample
from stn.runs.files import write_atomic

_POINTS = 3_000
_OBJECTS = 3
_PERTURBATIONS = 10
"""Perturbations shown of an object: those of the test set, and more where that has fewer."""
_ROTATIONS = torch.linspace(-60, 60, 11)
_POSES = {
    "degrees": ("rotation (degrees)", "{:.0f}°"),
    "log2_area": ("area (log2)", "{:+.1f}"),
    "shift": ("shift (pixels)", "{:+.0f}, {:+.0f}"),
}
"""Kind of pose -> its axis label and the title of an image under it."""


def warp(s: Subject) -> Sheet:
    """Show the same images warped at the start, in the middle and at the end of training."""
    strips: list[Strip | None] = [strip("input", s.stream.as_image(s.x_BCHW))]
    if s.rows:
        half = s.rows[-1]["step"] / 2
        middle = min(s.rows, key=lambda row: abs(row["step"] - half))
        for row in {row["step"]: row for row in (s.rows[0], middle, s.rows[-1])}.values():
            strips += s.strips(f"epoch {row['epoch']:.3g}", s.x_BCHW, s.recorded(row))
    else:
        strips += s.strips("warped", s.x_BCHW, s.theta(s.x_BCHW))
    if s.model.at[-1]:
        maps = as_maps(s.model.warps(s.x_BCHW)[-1].image_BCHW)
        strips.append(strip("warped\nfeature map,\nmean over\nchannels", maps))
    return Sheet(s.title, strips)


def _rotated(stream: Stream, number: int) -> Tensor:
    """Return one image under each of the rotations, counter-clockwise as seen, black outside."""
    a = torch.deg2rad(_ROTATIONS)
    theta_B6 = torch.stack([a.cos(), -a.sin(), 0 * a, a.sin(), a.cos(), 0 * a], 1)
    plain = stream.as_image(stream.test_images(torch.tensor([number])).x_BCHW).expand(len(a), -1, -1, -1)
    grid = affine_grid(theta_B6.view(-1, 2, 3), (plain.shape[2], plain.shape[3]), align_corners=True)
    return stream.as_input(sample(plain, grid, "zeros", True))


def objects(s: Subject) -> Sheet:
    """Show a few objects of different classes under many perturbations, before and after the warp."""
    dataset = s.stream.dataset
    labels = s.stream.test_images(torch.tensor(s.numbers)).y_B.tolist()
    first_of_class: dict[int, int] = {}
    for number, label in zip(s.numbers, labels, strict=True):
        first_of_class.setdefault(label, number)
    count = s.stream.data.validation or dataset.test
    kind = ("shift" if dataset.pose[0] == "x" else dataset.pose[0]) if dataset.perturb else "degrees"
    unit, wording = _POSES.get(kind, ("", ""))
    strips = []
    for number in list(first_of_class.values())[:_OBJECTS]:
        if dataset.perturb:
            batch = s.stream.test_images(torch.arange(_PERTURBATIONS) * count + number)
            order = batch.pose_BP[:, 0].argsort()
            x_BCHW, applied = batch.x_BCHW[order], batch.pose_BP[order]
        else:
            x_BCHW, applied = _rotated(s.stream, number), _ROTATIONS.unsqueeze(1)
        titles = [wording.format(*pose) for pose in applied.tolist()]
        before = strip("input", s.stream.as_image(x_BCHW), titles)
        strips += [before, *s.strips("warped", x_BCHW, s.theta(x_BCHW)), None]
    return Sheet(f"{s.title}: one object under many perturbations{unit and f', {unit}'}", strips[:-1])


def iterations(s: Subject) -> Sheet | None:
    """Show the result of every resampling; None for a network with a single one."""
    warps = s.model.warps(s.x_BCHW[:6])
    if sum(len(warp.steps) for warp in warps) == 1:
        return None
    columns, titles = [s.stream.as_image(s.x_BCHW[:6])], ["input"]
    head = "parallel" if s.model.options.parallel > 1 else "head"
    for t, (at, st, warp) in enumerate(zip(s.model.at, s.model.st, warps, strict=True)):
        heads = len(st.heads)  # type: ignore[arg-type]
        turns = len(warp.steps) // heads
        for k, step in enumerate(warp.steps):
            columns.append(as_maps(step) if at else s.stream.as_image(step))
            numbered = (("transformer", t, len(warps)), (head, k // turns, heads), ("step", k % turns, turns))
            titles.append("\n".join(f"{name} {i + 1}" for name, i, n in numbered if n > 1))
    lines = list(zip(*columns, strict=True))
    return Sheet(s.title, [strip("", lines[0], titles), *(strip("", line) for line in lines[1:])])


def region(s: Subject) -> Sheet:
    """Show which part of the image is sampled, and the result."""
    shape, theta_BP = s.stream.dataset.shape, s.theta(s.x_BCHW)
    lines = [outline(grid, shape[1:], s.model.options.align_corners) for grid in s.grids(s.x_BCHW)]
    before = strip("sampled\nregion", s.stream.as_image(s.x_BCHW), outlines=lines)
    return Sheet(s.title, [before, *s.strips("sampled", s.x_BCHW, theta_BP)])


def poses(s: Subject) -> Poses | None:
    """Show predicted against applied pose, for images from one end of the test set to the other."""
    n = s.stream.test_count
    index_N = torch.linspace(0, n - 1, min(_POINTS, n)).long()
    batches = [s.stream.test_images(index_B) for index_B in index_N.split(500)]
    shape = s.stream.dataset.shape
    grids = [[warp.grid_BHW2 for warp in s.model.warps(batch.x_BCHW)] for batch in batches]
    A_N33 = torch.cat([total_matrix(s.model, shape, of_batch) for of_batch in grids])
    pose_NP = torch.cat([batch.pose_BP for batch in batches]).double()
    label_N = torch.cat([batch.y_B for batch in batches])
    shown = []
    for kind, applied, compensated in applied_and_compensated(s.model, s.stream, A_N33, pose_NP):
        predicted = predicted_pose(kind, applied, compensated)
        x_NK, y_NK = (pose.reshape(len(applied), -1).numpy() for pose in (applied, predicted))
        shown.append(Pose(_POSES[kind][0], x_NK, y_NK, pose_summary(kind, applied, compensated, label_N)))
    return Poses(s.title, shown) if shown else None


def film(s: Subject, path: Path) -> Path:
    """Write a GIF of the images during training, a frame for each snapshot."""
    frames = [frame(s, row) for row in s.rows]
    buffer = io.BytesIO()
    durations_ms = [300] * (len(frames) - 1) + [2000]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations_ms, loop=0)
    write_atomic(path, buffer.getvalue())
    return path
