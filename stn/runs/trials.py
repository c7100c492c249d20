"""What is trained: pairs of an experiment and a seed, and the blocks in which they train together.

Experiments that differ only in learning rate or weight decay share blocks.
"""

import math
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

from stn.config.resolve import signature
from stn.config.schema import Config
from stn.config.seed_list import format_seeds, parse_seeds, share
from stn.runs.directory import Row, RunDir


class Trial(NamedTuple):
    config: Config
    sig: str
    seed: int
    run: RunDir
    fingerprint: dict[str, Any] | None = None
    """What the code computes for this configuration; None if unknown."""

    def identity(self) -> Row:
        """Return the fields of a result row that identify the experiment."""
        config = self.config
        return {
            "sig": self.sig,
            "seed": self.seed,
            "name": config.log.name,
            "arch": config.arch.name,
            "net": config.arch.net,
            "dataset": config.data.label,
            "lr": config.optim.lr,
            "weight_decay": config.optim.weight_decay,
            "precision": config.train.precision,
            "batch_size": config.data.batch_size,
            "fingerprint": self.fingerprint,
        }


def build_trials(configs: list[Config], process: int = 0, processes: int = 1) -> list[Trial]:
    """Return every experiment with every seed, in the contiguous share of one process."""
    pairs = [(config, seed) for config in configs for seed in parse_seeds(config.train.seeds)]
    trials = []
    for config, group in groupby([pairs[i] for i in share(len(pairs), process, processes)], key=itemgetter(0)):
        assert config.log.name is not None
        sig, seeds = signature(config), [seed for _, seed in group]
        run = RunDir.of(config.log.runs, config.log.name, sig, seeds)
        trials += [Trial(config, sig, seed, run) for seed in seeds]
    return trials


def group_by_run(trials: list[Trial]) -> list[list[Trial]]:
    """Group trials by run directory."""
    return [list(group) for _, group in groupby(trials, key=lambda trial: trial.run.path)]


def count_finished(trials: list[Trial]) -> tuple[int, int]:
    """Return how many seeds of these experiments have a result and how many were asked for, over all processes."""
    done = total = 0
    for group in group_by_run(trials):
        seeds = set(parse_seeds(group[0].config.train.seeds))
        done += len(seeds & group[0].run.finished().keys())
        total += len(seeds)
    return done, total


def cut_into_blocks(trials: list[Trial], most: int, saved: list[set[int]]) -> list[list[Trial]]:
    """Cut trials into blocks of equal size, at most ``most``; only seeds that share a saved step resume together.

    The larger blocks come first: what is left after some of them is cut as before.
    """
    groups: list[tuple[set[int], list[Trial]]] = []
    for trial, steps in zip(trials, saved, strict=True):
        steps = steps or {0}
        common, members = next((group for group in groups if group[0] & steps), (set(steps), []))
        if not members:
            groups.append((common, members))
        common &= steps
        members.append(trial)
    cut = []
    for _, members in groups:
        parts = math.ceil(len(members) / most)
        (size, larger), rest = divmod(len(members), parts), iter(members)
        cut += [list(islice(rest, size + (part < larger))) for part in range(parts)]
    return cut


def block_label(trials: list[Trial]) -> str:
    """Return the label of a block in log lines."""
    config, runs = trials[0].config, len(group_by_run(trials))
    settings = f" x {runs} settings" if runs > 1 else ""
    return f"{config.arch.name} {config.data.label} seed {format_seeds(sorted({t.seed for t in trials}))}{settings}"
