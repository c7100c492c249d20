"""The pictures that W&B and TensorBoard show of a run: where they lie in its directory, and how many there are at most.

During training the warps of a few images, at SHOWN_EVALUATIONS evaluations of SHOWN_SEEDS seeds of a run directory; at
the end the confusion matrix of every seed, and once the pictures and the table of all seeds.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stn.config.fields import steps_of
from stn.config.schema import Config
from stn.config.seed_list import parse_seeds
from stn.runs.directory import Row, RunDir

SHOWN_SEEDS = 4
SHOWN_EVALUATIONS = 24
FINAL = ("curves", "confusion", "warp", "object", "iterations", "region", "pose")
MOST_CLASSES = 100
"""Classes of the largest confusion matrix that is drawn."""
MOST_LINES = 1000
"""Seeds in a table of seeds."""
COLUMNS = (
    *("seed", "status", "test_acc", "val_acc", "best_test_acc", "best_val_acc", "best_epoch", "macro_f1"),
    *("bypass_acc", "images_per_s", "wall_s", "reason"),
)


def shown_seeds(config: Config, run: RunDir) -> list[int]:
    """Return the seeds whose warps are drawn during training."""
    return sorted(run.seeds or parse_seeds(config.train.seeds))[:SHOWN_SEEDS]


def is_shown(config: Config, step: int) -> bool:
    """Whether the warps of an evaluation are drawn: of all, or evenly spaced ones and the last where there are more."""
    steps, every = config.train.steps or 0, steps_of(config.eval.every)
    evaluations = -(-steps // every)
    interval = max(1, -(-evaluations // SHOWN_EVALUATIONS))
    return step == steps or (step % every == 0 and step // every % interval == 0)


def warps_file(run: RunDir, seed: int, step: int) -> Path:
    return run.pictures / "evaluations" / f"seed-{seed}" / f"step-{step:08d}.png"


def save_warps(run: RunDir, row: Row, png: bytes) -> None:
    """Write the picture of an evaluation, without fsync: a crash of the machine may damage it, which readers notice."""
    path = warps_file(run, row["seed"], row["step"])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(png)
    if run.may_write():
        temporary.replace(path)


def is_picture(path: Path) -> bool:
    """Whether this is an undamaged picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):  # SyntaxError: what PIL calls a broken PNG
        return False
    return True


def warps_of(run: RunDir, row: Row) -> Path | None:
    """Return the picture of the warps at an evaluation, if there is one."""
    path = warps_file(run, row["seed"], row["step"])
    return path if row["kind"] == "eval" and path.is_file() and is_picture(path) else None


def image_summary(name: str, picture: Path | Any) -> Any:
    """Return TensorBoard's record of an image: of a PNG file as it is, or of a PIL image."""
    from PIL import Image
    from tensorboard.compat.proto import summary_pb2  # an extra

    buffer = io.BytesIO()
    if isinstance(picture, Path):
        buffer.write(picture.read_bytes())
        picture = Image.open(buffer)
    else:
        picture.save(buffer, "PNG")
    Summary: Any = summary_pb2.Summary  # type: ignore[attr-defined]  # made at run time
    size = {"width": picture.width, "height": picture.height, "colorspace": 3}
    return Summary(value=[Summary.Value(tag=name, image=Summary.Image(**size, encoded_image_string=buffer.getvalue()))])


def can_draw_confusion(result: Row) -> bool:
    """Whether a result has a confusion matrix of at most MOST_CLASSES classes."""
    matrix = result.get("confusion") or ()
    return 0 < len(matrix) <= MOST_CLASSES and all(len(line) == len(matrix) for line in matrix)


def confusion_image(matrix: Sequence[Sequence[int]]) -> Any:
    """Return a confusion matrix as a PIL image: true classes from top to bottom, predicted ones from left to right."""
    from PIL import Image, ImageDraw

    side = 30 if len(matrix) <= 20 else 6
    image = Image.new("RGB", (len(matrix) * side, len(matrix) * side), "white")
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(matrix):
        for j, count in enumerate(line):
            share = count / max(1, sum(line))
            colour = tuple(round(255 + share * (dark - 255)) for dark in (8, 48, 107))
            draw.rectangle((j * side, i * side, (j + 1) * side - 2, (i + 1) * side - 2), fill=colour)
            if count and len(matrix) <= 20:
                draw.text((j * side + 2, i * side + 9), str(count), fill="white" if share > 0.5 else "black")
    return image


class Ending(NamedTuple):
    """What a run directory ends with: its pictures, and a table of its seeds."""

    seed: int
    """The seed whose run shows it: the first that has finished."""
    pictures: dict[str, Path]
    lines: list[list[Any]]
    """Lines of the table, in the order of COLUMNS."""
    digest: str
    """Hash of pictures and lines."""


def ending(run: RunDir) -> Ending | None:
    """Return what a run directory ends with, once its training has come to an end."""
    rows = [row for _, row in sorted(run.rows().items())]
    finished = [row["seed"] for row in rows if row["status"] == "finished"]
    if not finished or run.read_status().get("state") not in ("finished", "failed"):
        return None
    paths = {name: run.pictures / f"{name}.png" for name in FINAL}
    pictures = {name: path for name, path in paths.items() if path.is_file() and is_picture(path)}
    lines = [[row.get(column) for column in COLUMNS] for row in rows[:MOST_LINES]]
    content = repr(lines).encode() + b"".join(path.read_bytes() for path in pictures.values())
    return Ending(finished[0], pictures, lines, hashlib.sha256(content).hexdigest()[:16])
