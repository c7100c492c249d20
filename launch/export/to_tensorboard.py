"""TensorBoard: a folder of events per seed, named as training with --log.tensorboard names its values.

The name of an events file ends in the digest of its content; a seed that has changed is replaced.
"""

import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from launch.export.command import Outcome, import_package
from launch.export.seeds import SeedRecord
from stn.runs.files import write_atomic
from stn.tracking.pictures import image_summary


def write_tensorboard(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    import_package("tensorboard")
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
    from tensorboard.summary.writer.record_writer import RecordWriter

    # Made at run time, so type checkers do not know them.
    Event: Any = import_module("tensorboard.compat.proto.event_pb2").Event
    Summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=when, file_version="brain.Event:2").SerializeToString())

    def write(summary: Any, step: int) -> None:
        writer.write(Event(wall_time=when, step=step, summary=summary).SerializeToString())

    def add(name: str, value: float, step: int) -> None:
        write(Summary(value=[Summary.Value(tag=name, simple_value=value)]), step)

    for row in seed.rows:
        for key, number in row.items():
            if isinstance(number, float):
                add(f"{row['kind']}/{key}", number, row["step"])
    for (name, step), path in seed.pictures.items():
        write(image_summary(name, path), step)
    last = seed.rows[-1]["step"] if seed.rows else 0
    for key, number in seed.scalars.items():
        if isinstance(number, int | float) and key != "seed":
            add(f"result/{key}", float(number), last)
    return buffer.getvalue()
