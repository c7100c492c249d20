"""Draws the figures of a large report in several processes: matplotlib takes most of its time."""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    # -P: the folder that we are in may have files named as modules.
    words, environment = [sys.executable, "-P", "-m", __name__], os.environ | {"PYTHONPATH": paths}

    def run(part: int) -> subprocess.CompletedProcess[bytes]:
        content = pickle.dumps((_share(sections, part, workers), folder, more))
        return subprocess.run(words, input=content, stderr=subprocess.PIPE, env=environment, check=False)

    with ThreadPoolExecutor(workers) as pool:
        ended = list(pool.map(run, range(workers)))
    for done in ended:
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise OSError(f"figures could not be drawn: {said[-1]}")


if __name__ == "__main__":
    shared, target, formats = pickle.load(sys.stdin.buffer)
    for of_data_set in shared:
        figures.draw(of_data_set, target, *formats)
