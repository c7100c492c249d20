"""Before training: the trials of this process that are left to train, their run directories, and their blocks."""

from stn.config.yaml_files import dump_yaml
from stn.runs import provenance
from stn.runs.files import write_atomic
from stn.runs.trials import Trial, blocks, group_by_run
from stn.tracking.console import say
from stn.training import checkpoints
from stn.training.block_size import choose_block_size
from stn.training.runtime import Runtime


def lock_unfinished(runtime: Runtime, trials: list[Trial]) -> list[Trial]:
    """Lock the run directories that have seeds left to train and describe them there; return these trials."""
    unfinished: list[Trial] = []
    for group in group_by_run(trials):
        run, seeds = group[0].run, {trial.seed for trial in group}
        if runtime.writes and seeds - set(run.finished()):
            run.lock(tell=say)
            checkpoints.drop_temporary_files(run)
            write_atomic(run.config, dump_yaml(group[0].config))
            write_atomic(run.env, provenance.environment_json(sig=group[0].sig, **runtime.facts()))
        # Read again under the lock: another copy may have finished some in the meantime.
        finished = runtime.from_writer(set(run.finished()) if runtime.writes else set())
        unfinished += [trial for trial in group if trial.seed not in finished]
    return unfinished


def plan_blocks(runtime: Runtime, unfinished: list[Trial]) -> list[list[Trial]]:
    """Divide trials into blocks that train as one network; every rank gets the writing rank's plan."""
    if not unfinished:
        return []
    size = choose_block_size(unfinished, runtime) if runtime.writes else 0
    saved = [checkpoints.saved_steps(trial.run, trial.seed) for trial in unfinished] if runtime.writes else []
    return blocks(unfinished, *runtime.from_writer((size, saved)))
