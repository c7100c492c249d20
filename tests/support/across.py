"""Accuracies of architectures on several data sets, and cells that have them."""

from pathlib import Path

import numpy as np

from launch.report.analysis.cells import Cell
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data

DATASETS = ("mnist", "mnist_p", "mnist_r")
Sweep = dict[str, dict[str, dict[int, float]]]
"""Accuracies by architecture, data set and seed."""


def sweep(archs: int = 3, seeds: int = 10, datasets: tuple[str, ...] = DATASETS) -> Sweep:
    rng = np.random.default_rng(archs)
    common = rng.normal(0, 0.004, seeds)
    return {
        name: {
            data: {s: float(0.9 + 0.003 * i + common[s] + rng.normal(0, 0.003)) for s in range(seeds)}
            for data in datasets
        }
        for i, name in enumerate(("cnn", "stn_c0", "stn_slx", "stn_dlx")[:archs])
    }


def cells_of(values: Sweep) -> list[Cell]:
    cells = []
    for arch, of_arch in values.items():
        for data, of_data in of_arch.items():
            config = resolve(Config(arch=Arch(name=arch), data=Data(name=data)))
            rows = {seed: {"test_acc": acc, "steps": 9} for seed, acc in of_data.items()}
            cells.append(Cell(f"{arch}-{data}", config, Path(), rows=rows))
    return sorted(cells, key=lambda cell: (cell.dataset, cell.arch))
