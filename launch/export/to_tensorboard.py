"""TensorBoard: a folder of events per seed, named as training with --log.tensorboard names its values.

An events file has the digest of what is in it in its name; a seed that has changed is replaced.
"""

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from launch.export.command import Outcome
from launch.export.seeds import SeedRecord


def write_tensorboard(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    for seed in seeds:
        folder = Path(out) / "tensorboard" / str(seed.config.log.name) / seed.sig / f"seed-{seed.seed}"
        old = list(folder.glob("events.out.tfevents.*"))
        if any(path.name.endswith(f".{seed.digest}") for path in old):
            yield seed, "unchanged"
            continue
        scratch = folder / ".new"
        shutil.rmtree(scratch, ignore_errors=True)
        _write_events(seed, scratch)
        for path in old:
            path.unlink()
        for path in scratch.iterdir():
            path.rename(folder / path.name)
        scratch.rmdir()
        yield seed, "replaced" if old else "new"


def _write_events(seed: SeedRecord, folder: Path) -> None:
    from PIL import Image
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    Event: Any = import_module(
        "tensorboard.compat.proto.event_pb2"
    ).Event  # made at run time, for type checkers unknown
    Summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
    when = seed.run.metrics.stat().st_mtime if seed.run.metrics.exists() else 0.0
    writer = EventFileWriter(str(folder), filename_suffix=f".{seed.digest}")

    def add(value: Any, step: int) -> None:
        writer.add_event(Event(wall_time=when, step=step, summary=Summary(value=[value])))

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
    writer.close()
