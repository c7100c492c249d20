"""Which seeds this process has left to train: it locks their run directories."""

from contextlib import suppress
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env

from stn.config.dataset import build_dataset
from stn.config.plugins import provenance
from stn.config.schema import Config
from stn.config.seed_list import format_seeds
from stn.config.yaml_files import dump_yaml
from stn.models import kernels
from stn.runs.cores import cores
from stn.runs.directory import RunDir
from stn.runs.files import read_json
from stn.runs.process import environment_json
from stn.runs.trials import Trial, group_by_run
from stn.tracking.console import say, warn
from stn.training import checkpoints
from stn.training.blocks import FUSED, tried_size
from stn.training.runtime import Runtime

PATIENCE_S = 30.0
"""Seconds to wait for a process that trains some of our seeds in another block, as after an edit of a sweep's seeds."""


def _sources(config: Config) -> dict[str, Any]:
    """Return what env.json records of plugins, and of a data set that is read from a file."""
    known = build_dataset(config.data.name)
    facts = {key: getattr(known, key) for key in ("content", "mean", "std", "train", "test", "classes")}
    found = {"data": facts} if known.content else {}
    return found | ({"plugins": provenance(config.train.plugins)} if config.train.plugins else {})


def lock_unfinished(runtime: Runtime, trials: list[Trial]) -> list[Trial]:
    """Lock the run directories that have seeds left to train and describe them there; return these trials."""
    unfinished: list[Trial] = []
    for group in group_by_run(trials):
        run, seeds = group[0].run, {trial.seed for trial in group}
        if threads := runtime.from_writer(_threads_so_far(group) if runtime.writes else None):
            torch.set_num_threads(threads)
        missing = seeds - set(run.finished())
        if runtime.writes and (missing or not run.is_whole()):
            run.lease.take(say)
            _wait_for_other_blocks(run, missing)
            _say_what_begins_anew(run, missing)
            checkpoints.drop_temporary_files(run)
            run.heal(warn)
        if runtime.writes and seeds - set(run.finished()):
            once = group[0].config.checkpoint.model_copy(update={"retrain": False})  # of this start alone
            run.replace(run.config, dump_yaml(group[0].config.model_copy(update={"checkpoint": once})))
            tried = tried_size(run)
            facts = runtime.facts() | {"kernels": kernels.kind(runtime.device)} | _sources(group[0].config)
            facts |= {FUSED: tried} if tried else {}
            before = read_json(run.env) if _begun(group) or run.finished() else {}
            run.replace(run.env, environment_json(before, sig=group[0].sig, fingerprint=group[0].fingerprint, **facts))
        # Read again under the lock: another copy may have finished some in the meantime.
        finished = runtime.from_writer(set(run.finished()) if runtime.writes else set())
        unfinished += [trial for trial in group if trial.seed not in finished]
    if unfinished and runtime.writes:
        say(f"device    {_where(runtime, unfinished[0].config)}")
    return unfinished


def _where(runtime: Runtime, config: Config) -> str:
    """Return on what training runs, which the machine, Accelerate's settings or a launcher may have decided."""
    facts, on_cpu = runtime.facts(), runtime.device.type == "cpu"
    chosen = " (ACCELERATE_USE_CPU)" if on_cpu and parse_flag_from_env("ACCELERATE_USE_CPU") else ""
    shared = {"seeds": "the seeds", "data": "each batch"}.get(runtime.mode)
    parts = [f"CPU{chosen}", f"threads: {facts['threads']}"] if on_cpu else [facts["device_name"]]
    parts += [config.train.precision, f"{runtime.processes} processes share {shared}" if shared else ""]
    return ", ".join(filter(None, parts))


def _wait_for_other_blocks(run: RunDir, seeds: set[int]) -> None:
    """Wait until nobody trains these seeds as part of another block; OSError, without our lease, if somebody goes on.

    Whoever looks holds a lease already: of two that start at once at least one sees the other. If both do, the first by
    name has the longer patience.
    """
    for other in run.blocks():
        if other.path == run.path or other.lease.newest()[1]["released"]:
            continue
        with suppress(ValueError):  # a damaged configuration: nobody can train by it
            if not seeds & other.asked:
                continue
            try:
                other.lease.take(say, PATIENCE_S * (1 + (run.path < other.path)))
            except OSError:
                run.lease.release()
                raise
            other.lease.release()


def _say_what_begins_anew(run: RunDir, seeds: set[int]) -> None:
    for other in run.blocks():
        ours = sorted(seeds if other.seeds is None else seeds.intersection(other.seeds))
        begun = [s for s in ours if checkpoints.saved_steps(other, s) and not checkpoints.saved_steps(run, s)]
        if begun:
            again = "the same --seeds in as many processes as before resume them"
            warn(f"seeds {format_seeds(begun)} begin anew, although {other.path} has checkpoints of them: {again}")


def _begun(group: list[Trial]) -> bool:
    return any(checkpoints.saved_steps(trial.run, trial.seed) for trial in group)


def _threads_so_far(group: list[Trial]) -> int | None:
    """Return the threads that a run to resume was trained with: they decide the last bits of its numbers."""
    run, asked = group[0].run, group[0].config.train.threads
    threads = read_json(run.env).get("threads") if (_begun(group) or run.finished()) and not asked else None
    return threads if isinstance(threads, int) and 0 < threads <= cores() else None
