"""Measure a report over generated run directories: build time, memory, size, and time to open.

    python benchmarks/report.py [--archs 6] [--datasets 3] [--seeds 100] [--images 10000] [--repeat 3] [--keep FOLDER]
        [--json FILE]

Prints the median of --repeat runs of `python -m launch report`, its largest memory, the page's size, and the median
time until Chromium has loaded it (if there is one; STN_CHROMIUM names it).
"""

import json
import os
import shutil
import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measure import CORES, Parser, console, launched, machine, positive, save

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Log
from stn.config.yaml_files import dump_yaml
from stn.runs import predictions
from stn.runs.directory import RunDir

ARCHS = ["cnn", "stn_c0", "stn_cx", "stn_dlx", "stn_slx", "stn_c0_coord"]
DATASETS = ["mnist_r", "mnist", "mnist_rts", "mnist_p", "mnist_e"]
EVALUATIONS, BLOCK = 20, 10
CHROMIUM = os.environ.get("STN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def _confusion(rng: np.random.Generator, accuracy: float) -> list[list[int]]:
    shares = np.full((10, 10), (1 - accuracy) / 9) + np.eye(10) * (accuracy - (1 - accuracy) / 9)
    return [rng.multinomial(1000, line).tolist() for line in shares]


def _seed(rng: np.random.Generator, seed: int, quality: float) -> tuple[dict, list[dict]]:
    """Return a result row, and the metrics rows of a training."""
    last = quality + 0.004 * rng.normal() + 0.002 * np.sin(seed)
    rows = []
    for epoch in range(1, EVALUATIONS + 1):
        value = last - 0.3 * 0.7**epoch + 0.001 * rng.normal() * (epoch < EVALUATIONS)
        rows.append(
            {"kind": "eval", "seed": seed, "step": 100 * epoch, "epoch": float(epoch), "test_acc": float(value)}
        )
    applied = rng.uniform(-90, 90, 200)
    pose = {
        "applied": applied.round(2).tolist(),
        "predicted": (0.8 * applied + 9 * rng.normal(size=200)).round(2).tolist(),
    }
    rows.append({"kind": "pose", "seed": seed, "step": 100 * EVALUATIONS, "epoch": float(EVALUATIONS), "degrees": pose})
    confusion = _confusion(rng, last)
    row = {
        "seed": seed, "status": "finished", "test_acc": rows[-2]["test_acc"], "macro_f1": float(last), "test_loss": 0.1,
        "best_test_acc": max(r["test_acc"] for r in rows[:-1]), "best_epoch": 19.0, "pose_spread": 20 + rng.normal(),
        "pose_slope": 0.8, "pose_intercept": 0.3, "params": 53_744, "steps": 2000, "images_per_s": 9e3 + rng.normal(),
        "wall_s": 300.0, "fused": BLOCK, "world_size": 1, "confusion": confusion,
    }  # fmt: skip
    return row, rows


def _images(rng: np.random.Generator, dataset: str, count: int) -> predictions.KnownImages:
    """Return what a run would know of so many test images: labels, poses, and the pixels of some."""
    names = build_dataset(dataset).pose
    pose_NP, pixels = rng.uniform(-1, 1, (count, len(names))), rng.integers(0, 256, (12, 1, 28, 28)).astype("u1")
    label_N = rng.integers(0, 10, count)
    return predictions.KnownImages(label_N, pose_NP.astype("f4"), names, count, np.arange(12), pixels)


def _answers(rng: np.random.Generator, known: predictions.KnownImages, accuracy: float) -> predictions.Answers:
    """Return the answers of a seed with this accuracy; its errors are anywhere, but the first images are hard."""
    wrong_N = rng.random(len(known.label_N)) > accuracy
    wrong_N[:12] = True
    predicted_N = (known.label_N + wrong_N * rng.integers(1, 10, len(wrong_N))) % 10
    return predictions.Answers(predicted_N, np.where(wrong_N, -1, 1) * rng.random(len(wrong_N)))


def generate(folder: Path, archs: int, datasets: int, seeds: int, images: int = 0) -> None:
    """Write run directories like those of a sweep; architectures beyond the known ones differ in learning rate.

    With ``images``, seeds have answers to so many test images.
    """
    rng = np.random.default_rng(0)
    known = {name: _images(np.random.default_rng(1), name, images) for name in DATASETS if images}
    for a in range(archs):
        for d in range(datasets):
            arch, data = Arch(name=ARCHS[a % len(ARCHS)]), Data(name=DATASETS[d % len(DATASETS)])
            config = resolve(Config(arch=arch, data=data, log=Log(name="generated")))
            lr = 0.01 * (1 + a // len(ARCHS)) * (1 + d // len(DATASETS))
            config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": lr})})
            for first in range(0, seeds, BLOCK):
                run = RunDir(folder / f"sig{a:03d}x{d:03d}" / f"{first}-{min(first + BLOCK, seeds) - 1}")
                run.path.mkdir(parents=True)
                seed_rows = [
                    _seed(rng, seed, 0.9 + 0.06 * a / archs) for seed in range(first, min(first + BLOCK, seeds))
                ]
                for row, _ in seed_rows if images else []:
                    answers = _answers(rng, known[data.name], row["test_acc"])
                    row |= predictions.write_answers(run, row["seed"], answers, known[data.name].label_N)
                if images:
                    predictions.write_images(run, known[data.name])
                run.config.write_text(dump_yaml(config))
                run.env.write_text(json.dumps({"commit": "generated", "packages": {"torch": "2"}, "device": "cpu"}))
                run.results.write_text("".join(json.dumps(row) + "\n" for row, _ in seed_rows))
                run.metrics.write_text("".join(json.dumps(row) + "\n" for _, rows in seed_rows for row in rows))


def opening(page: Path, repeat: int) -> float | None:
    """Return the seconds until an offline browser has loaded the page; None if there is no browser."""
    if not CHROMIUM or not find_spec("playwright"):
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser, times_s = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]), []
        for _ in range(repeat):
            tab = browser.new_context(offline=True).new_page()
            tab.goto(page.as_uri())
            times_s.append(tab.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart") / 1000)
        browser.close()
    return statistics.median(times_s)


def main() -> None:
    parser = Parser(__doc__)
    for name, number in (("archs", 6), ("datasets", 3), ("seeds", 100), ("images", 10_000)):
        parser.add_argument(f"--{name}", type=positive, default=number)
    parser.add_argument("--keep", type=Path, help="generate the run directories in this folder and keep them")
    parser.add_argument("--repeat", type=positive, default=3)
    arguments = parser.parse_args()
    record = machine(None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "generated"
        generate(folder, arguments.archs, arguments.datasets, arguments.seeds, arguments.images)
        figures = launched(arguments.repeat, "report", str(folder.resolve()))
        page = (folder / "report" / "index.html").resolve()
        size, open_s = page.stat().st_size / 1e6, opening(page, arguments.repeat)
    cells = arguments.archs * arguments.datasets
    figures |= {"page_mb": round(size, 2)} | ({} if open_s is None else {"open_s": round(open_s, 2)})
    console.print(f"{cells} cells, {cells * arguments.seeds:,} seeds, {CORES} cores: {figures}")
    save(arguments.json, record | {"cells": cells, "seeds": cells * arguments.seeds, "figures": figures})


if __name__ == "__main__":
    main()
