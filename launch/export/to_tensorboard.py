"""TensorBoard: a folder of events per seed, named as training with --log.tensorboard names its values.

An events file has the digest of what is in it in its name; a seed that has changed is replaced.
"""

import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from launch.export.command import Outcome, need
from launch.export.seeds import SeedRecord
from stn.runs.files import write_atomic


def write_tensorboard(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    need("tensorboard")
    for seed in seeds:
        folder = Path(out) / "tensorboard" / str(seed.config.log.name) / seed.sig / f"seed-{seed.seed}"
        old = list(folder.glob("events.out.tfevents.*"))
        if any(path.name.endswith(f".{seed.digest}") for path in old):
            yield seed, "unchanged"
            continue
        when = seed.run.metrics.stat().st_mtime if seed.run.metrics.exists() else 0.0
        for path in old:
            path.unlink()
        write_atomic(folder / f"events.out.tfevents.{when:.0f}.{seed.digest}", _events(seed, when))
        yield seed, "replaced" if old else "new"


def _events(seed: SeedRecord, when: float) -> bytes:
    """Return the content of an events file."""
    from PIL import Image
    from tensorboard.summary.writer.record_writer import RecordWriter

    Event: Any = import_module(
        "tensorboard.compat.proto.event_pb2"
    ).Event  # made at run time, for type checkers unknown
    Summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=when, file_version="brain.Event:2").SerializeToString())

    def add(value: Any, step: int) -> None:
        event = Event(wall_time=when, step=step, summary=Summary(value=[value]))
        writer.write(event.SerializeToString())

    for row in seed.rows:
        for key, number in row.items():
            if isinstance(number, float):
                add(Summary.Value(tag=f"{row['kind']}/{key}", simple_value=number), row["step"])
    for (name, step), path in seed.pictures.items():
        with Image.open(path) as picture:
            width, height = picture.size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        add(Summary.Value(tag=name, image=image), step)
    last = seed.rows[-1]["step"] if seed.rows else 0
    for key, number in seed.scalars.items():
        if isinstance(number, int | float) and key != "seed":
            add(Summary.Value(tag=f"result/{key}", simple_value=float(number)), last)
    return buffer.getvalue()
