"""Run directories whose seeds have answers to test images, without training."""

from pathlib import Path

import numpy as np

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Log
from stn.config.yaml_files import dump_yaml
from stn.runs import predictions
from stn.runs.directory import RunDir

CLASSES, SIDE = 5, 6


def known_images(images: int, originals: int | None = None, seed: int = 0) -> predictions.KnownImages:
    """Return labels, rotations and the pixels of twelve images; image n has n in its first pixel."""
    rng = np.random.default_rng(seed)
    number_M = np.arange(12)
    pixels = rng.integers(0, 256, (12, 1, SIDE, SIDE)).astype("u1")
    pixels[:, 0, 0, 0] = number_M
    label_N, pose_N1 = rng.integers(0, CLASSES, images), rng.uniform(-90, 90, (images, 1)).astype("f4")
    return predictions.KnownImages(label_N, pose_N1, ("degrees",), originals or images, number_M, pixels)


def answer(images: predictions.KnownImages, wrong: float, rng: np.random.Generator) -> predictions.Answers:
    """Return answers of which about this share is wrong, more of those far from upright."""
    p_N = np.clip(2 * wrong * np.abs(images.pose_NP[:, 0]) / 90, 0, 1)
    wrong_N = rng.random(len(p_N)) < p_N
    predicted_N = np.where(wrong_N, (images.label_N + rng.integers(1, CLASSES, len(p_N))) % CLASSES, images.label_N)
    return predictions.Answers(predicted_N, np.where(wrong_N, -1, 1) * rng.random(len(p_N)))


def write_run(
    folder: Path, arch: str, seeds: range, images: predictions.KnownImages, wrong: float, dataset: str = "mnist_r"
) -> dict[int, predictions.Answers]:
    """Write a finished run; return the answers of its seeds."""
    run, rng = RunDir(folder / f"sig-{arch}-{dataset}" / f"{seeds[0]}-{seeds[-1]}"), np.random.default_rng(len(arch))
    run.path.mkdir(parents=True)
    config = Config(arch=Arch(name=arch), data=Data(name=dataset), log=Log(name="answers"))
    run.config.write_text(dump_yaml(resolve(config)))
    answers = {seed: answer(images, wrong, rng) for seed in seeds}
    rows = []
    for seed, of_seed in answers.items():
        accuracy = float((of_seed.predicted_N == images.label_N).mean())
        facts = predictions.write_answers(run, seed, of_seed, images.label_N)
        rows.append({"seed": seed, "status": "finished", "test_acc": accuracy} | facts)
    predictions.write_images(run, images)
    run.add_results(rows)
    return answers
