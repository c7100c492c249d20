"""Trackio: a project per name, a run per seed, found again by its name and the digest in its configuration.

A seed that has changed is replaced. A run is named .incomplete until all of it is written, so that the next export also
replaces one that was cut short.
"""

import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from launch.export.command import Outcome, import_package
from launch.export.seeds import SeedRecord

UNFINISHED = ".incomplete"
QUIET = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}


def write_trackio(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    if out:
        os.environ["TRACKIO_DIR"] = out  # read when it is imported
    trackio = import_package("trackio")
    known: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        name = project or str(seed.config.log.name)
        if name not in known:
            known[name] = _runs(trackio, name)
        runs = known[name]
        old = runs.get(seed.id)
        if old is not None and (old.config or {}).get("digest") == seed.digest:
            yield seed, "unchanged"
            continue
        for stale in (runs.get(seed.id), runs.get(seed.id + UNFINISHED)):
            if stale is not None:
                stale.delete()
        with redirect_stdout(StringIO()):  # it prints how to start its page for each run
            _write_run(trackio, name, seed)
        yield seed, "new" if old is None else "replaced"


def _runs(trackio: Any, project: str) -> dict[str, Any]:
    """Return the runs of a project by name."""
    try:
        return {run.name: run for run in trackio.Api().runs(project)}
    except ValueError:  # there is no such project yet, or its name is refused, which trackio.init says, too
        return {}


def _write_run(trackio: Any, project: str, seed: SeedRecord) -> None:
    facts = {"digest": seed.digest, "status": seed.status, "result": seed.scalars}
    config, name = seed.parameters | facts, seed.id + UNFINISHED
    run = trackio.init(project=project, name=name, group=seed.group, config=config, **QUIET)
    try:
        for i, (step, point) in enumerate(seed.points):
            last_of_step = i + 1 == len(seed.points) or seed.points[i + 1][0] != step
            paths = {key: path for (key, at), path in seed.pictures.items() if at == step and last_of_step}
            run.log(point | {key: trackio.Image(str(path)) for key, path in paths.items()}, step=step)
    finally:
        trackio.finish()
    _runs(trackio, project)[name].rename(seed.id)
