"""Draws the figures of a large report in several processes: matplotlib takes most of its time."""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from launch.report.analysis.images.blocks import NONE
from launch.report.analysis.sections import Section
from launch.report.analysis.tables import MOST_IN_MATRIX
from launch.report.output import figures
from stn.config.source import SOURCE
from stn.runs.cores import cores

EACH = 6
"""Figures that are worth the start of a process."""


def _share(sections: Sequence[Section], part: int, parts: int) -> list[Section]:
    """Return sections with a part of the figures, and with nothing but what these are drawn from."""
    drawn = []
    for i, section in enumerate(sections):
        kinds = {kind: name for j, (kind, name) in enumerate(section.figures.items()) if (i + j) % parts == part}
        panel = section.panels[0]._replace(compared=(), pairs=None, verdicts=[])
        images = NONE._replace(hardest=section.images.hardest)
        charts = section.charts[:MOST_IN_MATRIX]
        drawn.append(Section(section.name, [], [panel], charts, kinds, [], [], None, {}, images))
    return drawn


def draw(sections: Sequence[Section], folder: Path, *more: str) -> None:
    """Write the figures of all sections, also in more formats."""
    workers = min(cores(), sum(len(section.figures) for section in sections) // EACH)
    if workers < 2:
        for section in sections:
            figures.draw(section, folder, *more)
        return
    words = [sys.executable, "-m", __name__]
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": paths}
    with ExitStack() as pipes:
        started = [subprocess.Popen(words, stdin=pipe, stderr=pipe, env=environment) for _ in range(workers)]
        for process in started:
            pipes.enter_context(process)
            pipes.callback(process.kill)  # called first
        for part, process in enumerate(started):
            with suppress(BrokenPipeError), process.stdin:  # type: ignore[union-attr]
                pickle.dump((_share(sections, part, workers), folder, more), process.stdin)  # type: ignore[arg-type]
        errors = [process.stderr.read() for process in started if process.stderr]
        codes = [process.wait() for process in started]
    for code, error in zip(codes, errors, strict=True):
        if code:
            said = error.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
            raise OSError(f"figures could not be drawn: {said[-1]}")


if __name__ == "__main__":
    shared, target, formats = pickle.load(sys.stdin.buffer)
    for of_data_set in shared:
        figures.draw(of_data_set, target, *formats)
