"""Configurations of many seeds, and their trials."""

from pathlib import Path

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Train
from stn.runs.trials import Trial, build_trials
from tests.support.networks import BATCH_NORM


def trials(runs: Path, *configs: Config) -> list[Trial]:
    return build_trials(
        [resolve(c.model_copy(update={"log": c.log.model_copy(update={"runs": str(runs)})})) for c in configs]
    )


def config(arch: str = "cnn", seeds: str = "0-9", **fields) -> Config:
    return Config(arch=Arch(name=arch, net=BATCH_NORM), train=Train(seeds=seeds, steps=3, **fields))
